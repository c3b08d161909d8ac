package web_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/web"
)

// withHeader adds POST /keyed, which takes a header, and counts how often it ran with one that PostgreSQL could not
// store.
func withHeader(t *testing.T) (s server, unstorable *int) {
	t.Helper()
	s, unstorable = setup(t, web.Config{}), new(int)
	type input struct {
		Key  string `header:"Idempotency-Key"`
		Body item
	}
	huma.Register(s.API, huma.Operation{OperationID: "keyed", Method: http.MethodPost, Path: "/keyed"},
		func(_ context.Context, in *input) (*struct{ Body item }, error) {
			if !utf8.ValidString(in.Key) || strings.ContainsRune(in.Key, 0) {
				*unstorable++
			}
			return &struct{ Body item }{in.Body}, nil
		})
	return s, unstorable
}

// FuzzHeader: no header makes a panic or a 5xx, none changes the format of an answer, and what reaches a handler can be
// stored.
func FuzzHeader(f *testing.F) {
	for _, name := range []string{
		"Accept", "Content-Type", "Content-Encoding", "Idempotency-Key", "Traceparent", "Tracestate", "Baggage", "If-Match", "Expect", "Range", "Prefer", "Cookie",
	} {
		for _, value := range []string{
			"", "a;,b", ";", ",", "a;q", "a;q=,b;q=1", "application/xml", "application/json;q=0", "application/problem+json;", "*/*;,", " ; , ; ",
			"\xff", "é", "gzip", "IDENTITY", "identity, gzip", `"`, "=", "100-continue", "00-\xff-", strings.Repeat(";,", 1000), "a+;b", ";+json",
		} {
			f.Add(name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s, unstorable := withHeader(t)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/keyed", strings.NewReader(`{"productId":"p1","quantity":2}`))
		r.Header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 || *unstorable > 0 {
			t.Fatalf("%s: %q: %d %s\n%s", name, value, w.Code, w.Body, s.log)
		}
		if w.Code != http.StatusOK {
			readProblem(t, w.Result())
		} else if ct := w.Header().Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s: %q: the answer is %s", name, value, ct)
		}
	})
}

// A body is read as it is sent, or refused: never taken for something else.
func TestContentEncoding(t *testing.T) {
	t.Parallel()
	s, _ := withHeader(t)
	for _, tt := range []struct {
		encoding string
		status   int
	}{{"", 200}, {"identity", 200}, {"Identity", 200}, {"gzip", 415}, {"br", 415}, {"identity, gzip", 415}, {"made-up", 415}} {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/keyed", strings.NewReader(`{"productId":"p1","quantity":2}`))
		r.Header.Set("Content-Encoding", tt.encoding)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%q: %d, want %d", tt.encoding, w.Code, tt.status)
		}
		if tt.status == http.StatusOK {
			continue
		}
		p := readProblem(t, w.Result())
		if p.Type != web.TypePrefix+web.TypeUnsupportedMedia || len(p.Errors) != 1 || p.Errors[0].Location != "header.Content-Encoding" {
			t.Errorf("%q: %+v", tt.encoding, p)
		}
		if accepted := w.Header().Get("Accept-Encoding"); accepted != "identity" {
			t.Errorf("%q: the answer accepts %q", tt.encoding, accepted)
		}
	}
}
