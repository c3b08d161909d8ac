package inventory

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// What a quote says is what an order is reserved for.
func TestQuoteIsWhatAnOrderCosts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put("tea", 499, "EUR", 0)
	b.put("cup", 150, "EUR", 9)
	b.put("leaflet", 0, "EUR", 9)
	b.put("pot", 3000, "EUR", 9)
	status, got := request(t, b.api(), http.MethodPost, "/quotes",
		`{"items":[{"productId":"tea","quantity":3},{"productId":"cup","quantity":2},{"productId":"leaflet","quantity":1},{"productId":"cup","quantity":1}]}`)
	line := func(id string, price, quantity, total float64) any {
		return map[string]any{"productId": id, "name": id, "price": price, "quantity": quantity, "total": total}
	}
	want := map[string]any{
		"lines": []any{line("tea", 499, 3, 1497), line("cup", 150, 2, 300), line("leaflet", 0, 1, 0), line("cup", 150, 1, 150)}, "total": 1947.0, "currency": "EUR",
	}
	if diff := cmp.Diff(want, got); status != http.StatusOK || diff != "" {
		t.Errorf("%d (-want +got):\n%s", status, diff)
	}
	if events := sagatest.Drain(t, b.db); len(events) != 4 { // of the products
		t.Errorf("it told %d things", len(events)-4)
	}

	var quote Quote
	_, got = request(t, b.api(), http.MethodPost, "/quotes", `{"items":[{"productId":"cup","quantity":3},{"productId":"pot","quantity":1}]}`)
	if text, err := json.Marshal(got); err != nil || json.Unmarshal(text, &quote) != nil {
		t.Fatalf("%v, %v", got, err)
	}
	said := sagatest.Deliver(t, b.db, Choreography(), asked(t, 1, quote.Total, quote.Currency, Line{"cup", 3}, Line{"pot", 1}))
	if said[0].Topic != event.InventoryReserved.Name() {
		t.Errorf("an order as it was quoted: %s", told(t, said[0]))
	}
}

// What cannot be ordered has no quote, and every item that keeps it from one is named.
func TestNoQuote(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put("tea", 499, "EUR", 1)
	b.put("sake", 50, "JPY", 1)
	b.put("gold", 1_000_000_000_000, "EUR", 1)
	for items, want := range map[string][]string{
		`[{"productId":"a","quantity":1},{"productId":"tea","quantity":1},{"productId":"b","quantity":1}]`:       {"unknown-product", "body.items[0].productId", "body.items[2].productId"},
		`[{"productId":"sake","quantity":1},{"productId":"tea","quantity":1},{"productId":"gold","quantity":1}]`: {"mixed-currencies", "body.items[1].productId", "body.items[2].productId"},
		`[{"productId":"tea","quantity":1},{"productId":"sake","quantity":1},{"productId":"b","quantity":1}]`:    {"unknown-product", "body.items[2].productId"},
		`[{"productId":"gold","quantity":1001}]`:                         {"invalid-request", "body.items"},
		`[` + many(100, `{"productId":"gold","quantity":1000000}`) + `]`: {"invalid-request", "body.items"}, // beyond 64 bits
		`[]`:                                     {"invalid-request", "body.items"},
		`[{"productId":"tea","quantity":0}]`:     {"invalid-request", "body.items[0].quantity"},
		`[{"productId":"t\u0000","quantity":1}]`: {"invalid-request", "body.items[0].productId"},
	} {
		status, body := request(t, b.api(), http.MethodPost, "/quotes", `{"items":`+items+`}`)
		got := []string{fmt.Sprint(body["type"])[len("urn:problem-type:"):]}
		for _, e := range body["errors"].([]any) {
			got = append(got, e.(map[string]any)["location"].(string))
		}
		if status != http.StatusUnprocessableEntity || !slices.Equal(got, want) {
			t.Errorf("%.200s: %d %v, want %v", items, status, got, want)
		}
	}
	if status, _ := request(t, b.api(), http.MethodPost, "/quotes", `{"items":[{"productId":"gold","quantity":1000}]}`); status != http.StatusOK {
		t.Errorf("the largest amount: %d", status)
	}
}

func many(n int, item string) string {
	text := item
	for range n - 1 {
		text += "," + item
	}
	return text
}
