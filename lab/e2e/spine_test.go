package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestSpine runs every story on one system, one after the other: topics have fixed names, so a broker is one system's.
// The stories keep apart by their users and products. What comes after a failure would tell nothing, for a story may
// have left the system in pieces.
func TestSpine(t *testing.T) {
	s := setup(t)
	for _, story := range []struct {
		name   string
		run    func(*testing.T, *spine)
		buries bool // ends with more dead letters than it began with
	}{
		{name: "an order is confirmed", run: orderIsConfirmed},
		{name: "an order finds nothing in stock", run: orderIsOutOfStock},
		{name: "a declined order gives its stock back", run: orderIsDeclined},
		{name: "free orders are orders", run: ordersAreFree},
		{name: "a request sent again is one order", run: requestSentAgain},
		{name: "orders are cancelled", run: ordersAreCancelled},
		{name: "a frozen merchant pays back when it is thawed", run: merchantIsFrozen},
		{name: "one of a user's accounts is frozen", run: furtherAccountIsFrozen},
		{name: "what is told can be found and counted", run: readsFollow},
		{name: "events follow the contract", run: eventsFollowTheContract},
		{name: "300 orders at once", run: manyOrdersAtOnce},
		{name: "orders are taken while all others are down", run: othersAreDown},
		{name: "a second instance joins and leaves", run: secondInstance},
		{name: "services restart", run: servicesRestart},
		{name: "everything stops under load", run: everythingStops},
		{name: "Kafka restarts", run: kafkaRestarts},
		{name: "databases restart", run: databasesRestart},
		{name: "a dead letter waits for its redrive", run: deadLetterIsRedriven, buries: true},
		{name: "a message no code can handle stops nobody", run: poison, buries: true},
	} {
		ok := t.Run(story.name, func(t *testing.T) {
			before := s.deadLetters(t)
			story.run(t, s)
			if after := s.deadLetters(t); story.buries != (after != before) {
				t.Errorf("dead letters:\n%s\nbefore:\n%s", after, before)
			}
		})
		if !ok {
			t.FailNow()
		}
	}
	s.neverFalse(t)
}

func orderIsConfirmed(t *testing.T, s *spine) {
	tea, cups := s.product(t, 10), s.product(t, 20)
	user := unique("user")
	o := s.place(t, draft{UserID: user, Items: []item{{tea, 3}, {cups, 20}}, Amount: 4200, Currency: "EUR"})
	o = s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
	if o.SettledAt == nil || o.SettledAt.Before(o.CreatedAt) || o.Reason != "" {
		t.Errorf("settled at %v, created at %v, reason %q", o.SettledAt, o.CreatedAt, o.Reason)
	}
	if n := s.balance(t, user, []string{o.ID}, map[string]int64{tea: 10, cups: 20}); n != (tally{confirmed: 1}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func orderIsOutOfStock(t *testing.T, s *spine) {
	tea, cup := s.product(t, 10), s.product(t, 1)
	user, unknown := unique("user"), unique("nothing")
	var ids []string
	for missing, items := range map[string][]item{cup: {{tea, 1}, {cup, 2}}, unknown: {{unknown, 1}, {tea, 1}}} {
		o := s.place(t, draft{UserID: user, Items: items, Amount: 4200, Currency: "EUR"})
		o = s.settled(t, o.ID, cancelled, "order.created", "inventory.released", "inventory.reservation.failed")
		if !strings.Contains(o.Reason, missing) {
			t.Errorf("the reason is %q; want one that names %s", o.Reason, missing)
		}
		ids = append(ids, o.ID)
	}
	if n := s.balance(t, user, ids, map[string]int64{tea: 10, cup: 1}); n != (tally{outOfStock: 2}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func orderIsDeclined(t *testing.T, s *spine) {
	tea, user := s.product(t, 10), unique("user")
	o := s.place(t, cart(user, tea, 4, tooMuch))
	o = s.settled(t, o.ID, cancelled, "order.created", "inventory.released", "payment.failed")
	if !strings.Contains(o.Reason, fmt.Sprint(tooMuch)) {
		t.Errorf("the reason is %q; want one that names the amount", o.Reason)
	}
	if n := s.balance(t, user, []string{o.ID}, map[string]int64{tea: 10}); n != (tally{declined: 1}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func ordersAreFree(t *testing.T, s *spine) {
	leaflet, user := s.product(t, 10), unique("user")
	var ids []string
	for _, amount := range []int64{0, 0, 500} {
		o := s.place(t, cart(user, leaflet, 1, amount))
		s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
		ids = append(ids, o.ID)
	}
	o, err := fetch[order](t.Context(), s.url("order")+"/orders/"+ids[0])
	if err != nil {
		t.Fatal(err)
	}
	s.cancel(t, o)
	s.settled(t, o.ID, cancelled, "order.created", "inventory.released", "order.cancel.requested", "payment.completed", "payment.refunded")
	if n := s.balance(t, user, ids, map[string]int64{leaflet: 10}); n != (tally{confirmed: 2, refunded: 1}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func requestSentAgain(t *testing.T, s *spine) {
	tea, user, key := s.product(t, 10), unique("user"), unique("key")
	first := s.place(t, cart(user, tea, 4, 2500), "Idempotency-Key", key)
	s.settled(t, first.ID, confirmed, "order.created", "payment.completed")
	if again := s.place(t, cart(user, tea, 4, 2500), "Idempotency-Key", key); again.ID != first.ID {
		t.Errorf("sent again it is order %s, was %s", again.ID, first.ID)
	}
	other, err := request(t.Context(), http.MethodPost, s.url("order")+"/orders", cart(user, tea, 1, 2500), "Idempotency-Key", key)
	if err != nil || other.status != http.StatusUnprocessableEntity {
		t.Errorf("another order under the same key: %d %s %v", other.status, other.body, err)
	}
	if n := s.balance(t, user, []string{first.ID}, map[string]int64{tea: 10}); n != (tally{confirmed: 1}) {
		t.Errorf("orders ended as %+v", n)
	}
}

func manyOrdersAtOnce(t *testing.T, s *spine) {
	const orders, units = 300, 40
	plenty, scarce := s.product(t, 10_000), s.product(t, units)
	user := unique("user")
	drafts := []draft{
		cart(user, plenty, 3, 2500), cart(user, plenty, 2, tooMuch), cart(user, scarce, 1, 900),
		{UserID: user, Items: []item{{scarce, 1}, {plenty, 1}}, Amount: 1200, Currency: "EUR"}, // locks both
	}
	ids := make([]string, orders)
	var posts errgroup.Group
	for i := range orders {
		posts.Go(func() error {
			ids[i] = s.place(t, drafts[i%len(drafts)]).ID
			return nil
		})
	}
	if err := posts.Wait(); err != nil {
		t.Fatal(err)
	}
	n := s.balance(t, user, ids, map[string]int64{plenty: 10_000, scarce: units})
	each := orders / len(drafts)
	if want := (tally{confirmed: each + units, declined: each, outOfStock: 2*each - units}); n != want {
		t.Errorf("orders ended as %+v; want %+v", n, want)
	}
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != orders {
		t.Error("two orders have the same id")
	}
}
