package inventory

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
)

// want fails the test where what was said differs.
func (b bundle) want(want []string, got []string) {
	b.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.Errorf("(-want +got):\n%s", diff)
	}
}

// said is what is said of an order of so many units.
func said(units int64) string { return fmt.Sprintf(": reserved for u-1, %d EUR", price*units) }

func TestBatchReservesInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5}, Line{"cup", 1})
	outs := b.deliver(
		created(t, 1, Line{"tea", 2}, Line{"cup", 1}),
		created(t, 2, Line{"cup", 1}),
		created(t, 3, Line{"tea", 1}, Line{"sku-9", 1}),
		created(t, 4, Line{"tea", 4}),
		created(t, 5, Line{"tea", 1}, Line{"tea", 2}),
	)
	b.want([]string{
		"order 1" + said(3),
		"order 2: out of stock: cup: 1 wanted, 0 available",
		"order 3: unknown product: sku-9",
		"order 4: out of stock: tea: 4 wanted, 3 available",
		"order 5" + said(3),
	}, outs)
	b.want([]string{"cup: 0+1", "tea: 0+5"}, b.stock())
	b.consistent()
}

func TestRepeatedOrderGetsItsStoredOutcome(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 3})
	first := b.deliver(created(t, 1, Line{"tea", 3}), created(t, 2, Line{"tea", 1}))
	if _, ok, err := restockProduct(t.Context(), b.db, "tea", 10); err != nil || !ok {
		t.Fatalf("restock: %t, %v", ok, err)
	}
	want := b.reservations()

	again := b.deliver(created(t, 1, Line{"tea", 3}), created(t, 2, Line{"tea", 1}), created(t, 2, Line{"tea", 1}))

	b.want(append(first, first[1]), again)
	b.want([]string{"tea: 10+3"}, b.stock())
	if diff := cmp.Diff(want, b.reservations()); diff != "" {
		t.Errorf("reservations (-want +got):\n%s", diff)
	}
}

func TestReleaseGivesBackOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5}, Line{"cup", 5})
	order1 := created(t, 1, Line{"tea", 2}, Line{"cup", 1})
	b.deliver(order1, created(t, 2, Line{"tea", 1}))

	b.want([]string{"order 1: released"}, b.deliver(unpaid(t, 1)))
	b.want([]string{"cup: 5+0", "tea: 4+1"}, b.stock())

	// What comes again finds the stored outcomes; that the order was reserved once stays true.
	b.want([]string{"order 1: released", "order 1: released"}, b.deliver(unpaid(t, 1), unpaid(t, 1)))
	b.want([]string{"order 1" + said(3)}, b.deliver(created(t, 1, Line{"tea", 2}, Line{"cup", 1})))
	b.want([]string{}, b.deliver(order1))
	b.want([]string{"cup: 5+0", "tea: 4+1"}, b.stock())
	b.consistent()
}

// Whatever calls for a release, alone or one after the other, in a poll or in several, before the reserve or after it:
// the items are given back once, and each message is answered.
func TestEveryReasonReleases(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 9})
	b.deliver(created(t, 0, Line{"tea", 2}), created(t, 1, Line{"tea", 3}), created(t, 2, Line{"tea", 4}))
	for n := range reasons {
		b.want([]string{fmt.Sprintf("order %d: released", n)}, b.deliver(unneeded(t, n, n)))
	}
	b.want([]string{"tea: 9+0"}, b.stock())
	for n := range reasons {
		released := fmt.Sprintf("order %d: released", n)
		b.want([]string{released, released, released, released}, b.deliver(unpaid(t, n), unneeded(t, n, 0), unneeded(t, n, 1), unneeded(t, n, 2)))
		b.want([]string{fmt.Sprintf("order 1%d: released", n)}, b.deliver(unneeded(t, 10+n, n)))
		b.want([]string{fmt.Sprintf("order 1%d: released before it was reserved", n)}, b.deliver(created(t, 10+n, Line{"tea", 1})))
	}
	b.want([]string{"tea: 9+0"}, b.stock())
	b.consistent()
}

func TestLateReserveIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5})
	late := "order 1: released before it was reserved"
	b.want([]string{"order 1: released"}, b.deliver(unpaid(t, 1)))
	b.want([]string{late}, b.deliver(created(t, 1, Line{"tea", 2})))
	b.want([]string{"order 1: released"}, b.deliver(unpaid(t, 1)))
	b.want([]string{late}, b.deliver(created(t, 1, Line{"tea", 2})))
	b.want([]string{"tea: 5+0"}, b.stock())
	b.consistent()
}

func TestReleaseOfARefusedOrderChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 1})
	refused := b.deliver(created(t, 1, Line{"tea", 2}))
	b.want([]string{"order 1: released"}, b.deliver(unpaid(t, 1)))
	b.want(refused, b.deliver(created(t, 1, Line{"tea", 2})))
	b.want([]string{"tea: 1+0"}, b.stock())
	want := []Reservation{{OrderID: order(1), Status: Refused, Items: []Line{}, Reason: "out of stock: tea: 2 wanted, 1 available",
		ReasonCode: event.CodeOutOfStock, ReasonParameters: event.Parameters{"productId": "tea", "wanted": "2", "available": "1"}}}
	if diff := cmp.Diff(want, b.reservations()); diff != "" {
		t.Errorf("reservations (-want +got):\n%s", diff)
	}
}

// One poll comes out as its messages would one by one, to the ids of the events.
func TestBatchEqualsOneByOne(t *testing.T) {
	t.Parallel()
	stock := []Line{{"a", 9}, {"b", 7}, {"c", 0}}
	batch, single := setup(t, stock...), setup(t, stock...)
	var creates, releases []broker.Record
	for n := range 30 {
		lines := []Line{{"a", int64(n%3 + 1)}, {"b", int64(n%2 + 1)}}[n%2:]
		creates = append(creates, created(t, n%20, lines...))
		if n%4 == 0 {
			releases = append(releases, unpaid(t, n%25))
		}
	}
	creates = append(creates, created(t, 98, Line{"c", 1}), created(t, 99, Line{"a", 1}, Line{"sku-9", 1}), creates[0])

	for _, records := range [][]broker.Record{creates, releases} {
		together := batch.ids(records...)
		var alone []string
		for _, r := range records {
			alone = append(alone, single.ids(r)...)
		}
		batch.want(alone, together)
		batch.want(single.stock(), batch.stock())
		if diff := cmp.Diff(single.reservations(), batch.reservations()); diff != "" {
			t.Errorf("reservations (-alone +together):\n%s", diff)
		}
	}
	batch.consistent()
}
