package inventory

import (
	"fmt"
	"testing"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// products shows what is told of products, a line each.
func (b bundle) products(records []broker.Record) []string {
	b.Helper()
	out := []string{}
	for _, r := range records {
		if r.Topic != event.ProductUpdated.Name() {
			continue
		}
		e := sagatest.Decode(b.T, event.ProductUpdated, r)
		if string(r.Key) != e.ProductID {
			b.Errorf("the key of %s is %s", e.ProductID, r.Key)
		}
		out = append(out, fmt.Sprintf("%s v%d: %s, %d %s, %s", e.ProductID, e.Version, e.Name, e.Price, e.Currency, e.Stock))
	}
	return out
}

// A product is told of when it is set and its stock moves, and by orders only when its stock state turns: not once per
// order.
func TestProductIsToldOfWhenItChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5}, Line{"cup", 1}, Line{"pot", 0})
	b.want([]string{"tea v1: tea, 100 EUR, IN_STOCK", "cup v1: cup, 100 EUR, IN_STOCK", "pot v1: pot, 100 EUR, SOLD_OUT"},
		b.products(sagatest.Drain(t, b.db)))
	tell := func(want []string, records ...broker.Record) {
		t.Helper()
		b.want(want, b.products(sagatest.Deliver(t, b.db, Choreography(), records...)))
	}

	tell([]string{}, created(t, 1, Line{"tea", 2}), created(t, 2, Line{"tea", 2}))
	tell([]string{"cup v2: cup, 100 EUR, SOLD_OUT", "tea v2: tea, 100 EUR, SOLD_OUT"},
		created(t, 3, Line{"tea", 1}), created(t, 4, Line{"cup", 1}), created(t, 5, Line{"pot", 1}))
	tell([]string{}, created(t, 6, Line{"tea", 1}))
	tell([]string{"tea v3: tea, 100 EUR, IN_STOCK"}, unpaid(t, 1), unpaid(t, 2))

	if _, ok, err := restockProduct(t.Context(), b.db, "pot", 3); err != nil || !ok {
		t.Fatalf("restock: %t, %v", ok, err)
	}
	draft := Draft{Name: "Tea", Price: 0, Currency: "EUR", Stock: 1}
	if _, created, err := putProduct(t.Context(), b.db, "tea", draft); err != nil || created {
		t.Fatalf("put: created %t, %v", created, err)
	}
	b.want([]string{"pot v2: pot, 100 EUR, IN_STOCK", "tea v4: Tea, 0 EUR, IN_STOCK", "tea v5: Tea, 0 EUR, SOLD_OUT"}, b.products(sagatest.Drain(t, b.db)))

	if _, _, v, err := move(t.Context(), b.db, Movement{ID: order(9), ProductID: "tea", Kind: Loss, Units: 2}); err != nil || v != moreThanThere {
		t.Fatalf("more lost than there is: %v, %v", v, err) // refused, and not told of
	}
	if _, created, err := putProduct(t.Context(), b.db, "tea", draft); err != nil || created { // what it is already
		t.Fatalf("put again: created %t, %v", created, err)
	}
	b.want([]string{}, b.products(sagatest.Drain(t, b.db)))
	b.consistent()
}
