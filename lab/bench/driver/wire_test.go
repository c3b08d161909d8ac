package driver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestWireReadsAnswers(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		err     string
	}{
		{"accepted", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/orders/"+id.String())
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, strings.Repeat("x", 2000))
		}, ""},
		{"accepted, and the connection closes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Location", "/orders/"+id.String())
			w.WriteHeader(http.StatusAccepted)
		}, ""},
		{"refused", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such user", http.StatusUnprocessableEntity)
		}, "422: no such user"},
		{"no Location", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }, "without a Location"},
		{"unknown length", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, "length is not given"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(tc.handler)
			defer srv.Close()
			c := newConn(srv.Listener.Addr().String())
			defer c.close()
			for range 3 { // on the same connection, or on a new one
				got, err := c.place([]byte(`{}`))
				switch {
				case tc.err == "" && (err != nil || got != id):
					t.Fatalf("got %s, %v; want %s", got, err, id)
				case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
					t.Fatalf("error %v; want one with %q", err, tc.err)
				}
			}
		})
	}
}
