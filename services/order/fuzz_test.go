package order

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/web"
)

// FuzzPostOrder holds POST /orders, up to where it would reach the database, to this: whatever comes is answered with
// 202 or with a problem below 500, and what is accepted is within the limits.
func FuzzPostOrder(f *testing.F) {
	valid := draft("u-1")
	for _, body := range []string{
		valid, "", "null", "[]", "{", "\xff", valid + valid, strings.ReplaceAll(valid, "4200", "9223372036854775808"),
		strings.ReplaceAll(valid, "4200", "1e400"), strings.ReplaceAll(valid, "4200", "-0"), strings.ReplaceAll(valid, "p-2", "p-1"),
		strings.ReplaceAll(valid, "u-1", "\\u0000"), strings.ReplaceAll(valid, "u-1", "\\ud800"), strings.Repeat("[", 10_000),
		strings.ReplaceAll(valid, "items", "ITEMS"),
	} {
		f.Add([]byte(body), "application/json", "")
		f.Add([]byte(body), "", "key")
	}
	f.Add([]byte(valid), "text/plain", `"a key"`)
	f.Add([]byte(valid), "application/json; charset=latin1", `"`)

	var accepted *posting
	s := web.New(web.Config{Service: "order"})
	h := handlers{place: func(_ context.Context, p posting) (answer, error) {
		accepted = &p
		return p.answer, nil
	}}
	h.register(s.API)
	f.Fuzz(func(t *testing.T, body []byte, contentType, key string) {
		accepted = nil
		r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Idempotency-Key", key)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)

		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("the answer is not JSON: %q", w.Body)
		}
		if w.Code != http.StatusAccepted {
			if w.Code < 400 || w.Code >= 500 || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Fatalf("%d %s %s", w.Code, w.Header().Get("Content-Type"), w.Body)
			}
			return
		}
		if accepted == nil || accepted.order == nil {
			t.Fatalf("accepted, but not placed: %s", w.Body)
		}
		o := accepted.order
		if err := o.created().Validate(); err != nil || o.Amount > 1e15 || len(o.Items) > 100 || len(o.UserID) > 4*128 {
			t.Fatalf("accepted %+v: %v", o, err)
		}
		if strings.ContainsFunc(o.UserID, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("accepted a control character in %q", o.UserID)
		}
		for i, item := range o.Items {
			if item.Quantity > 1e6 || len(item.ProductID) > 64 {
				t.Fatalf("accepted line %d: %+v", i, item)
			}
		}
	})
}
