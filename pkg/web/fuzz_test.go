package web_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/web"
)

// FuzzBody: no body makes a panic or a 5xx, and what is accepted is what a strict decoder makes of it.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		goodBody, "", "null", "[]", "{}", `{"items":[[]]}`, `{"items":[{"quantity":1e999}]}`, `{"userId":"\ud800"}`, `{"tags":[[],[]]}`,
		` { "userId" : "a\"b\\" , "items" : [ { "productId" : "[}" , "quantity" : 1 } ] , "amount" : 1 , "currency" : "EUR" } `,
		strings.Repeat(`{"a":`, 100), strings.Repeat("[", 1000), `{"amount":-0}`, `{"items":{}}`, `{"tags":[1,{}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s := setup(t, web.Config{})
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/orders/"+someID, strings.NewReader(body)))
		if w.Code >= 500 {
			t.Fatalf("%q: %d %s\n%s", body, w.Code, w.Body, s.log)
		}
		if w.Code != http.StatusAccepted {
			return
		}
		var want order
		dec := json.NewDecoder(strings.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("%q is accepted: %v", body, err)
		}
		if text, _ := json.Marshal(want); !jsonEqual(t, text, w.Body.Bytes()) {
			t.Errorf("%q: understood as %s, want %s", body, w.Body, text)
		}
	})
}

func jsonEqual(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
