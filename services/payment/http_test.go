package payment

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/web"
)

func TestPaymentsOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 1000), reserved(t, 2, "mallory", 1))
	paid := b.payments()
	server := web.New(web.Config{Service: "payment"})
	(&handlers{db: b.db, bank: b.bank()}).register(server.API)
	payment := func(n int, more map[string]any) map[string]any {
		p := paid[order(n)]
		out := map[string]any{
			"orderId": p.OrderID.String(), "paymentId": p.ID.String(), "userId": p.UserID, "amount": float64(p.Amount), "currency": "EUR",
		}
		maps.Copy(out, more)
		return out
	}
	for _, tt := range []struct {
		name, path string
		status     int
		want       map[string]any
	}{
		{"completed", "/payments/" + order(1).String(), 200, payment(1, map[string]any{"status": "COMPLETED"})},
		{"failed", "/payments/" + order(2).String(), 200, payment(2, map[string]any{
			"status": "FAILED", "reason": "user mallory is declined", "reasonCode": "declined", "reasonParameters": map[string]any{"userId": "mallory"},
		})},
		{"none", "/payments/" + order(3).String(), 404, map[string]any{
			"type": web.TypePrefix + "not-found", "title": "Not found", "status": 404.0,
			"detail": "order " + order(3).String() + " has no payment; if it is new, its event may be on its way",
		}},
		{"no id", "/payments/3", 422, map[string]any{
			"type": web.TypePrefix + "invalid-request", "title": "Invalid request", "status": 422.0,
			"detail": "path.orderId: expected a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f",
			"errors": []any{map[string]any{
				"location": "path.orderId", "message": "expected a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f", "value": "3",
			}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", tt.path, nil))
			var got map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("status %d, %q: %v", w.Code, w.Body, err)
			}
			at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(got["createdAt"]))
			if w.Code == 200 && (err != nil || at.Location() != time.UTC || time.Since(at).Abs() > time.Hour) {
				t.Errorf("createdAt is %v, want a recent time in UTC", got["createdAt"])
			}
			delete(got, "createdAt")
			if w.Code != tt.status {
				t.Errorf("status %d, want %d", w.Code, tt.status)
			}
			want(t, tt.want, got)
		})
	}
}
