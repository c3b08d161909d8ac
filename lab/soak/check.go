package soak

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/soak/witness"
)

// check returns what is wrong with the facts; nothing is right.
func check(f *facts) []Violation {
	v := &verdict{rules: map[string]int{}}
	f.checkRequests(v)
	f.checkBooks(v)
	f.checkProducts(v)
	f.checkMoney(v)
	f.checkTransfers(v)
	f.checkWatcher(v)
	f.checkEvents(v)
	f.checkWitness(v)
	f.checkDeadLetters(v)
	f.checkLimits(v)
	for _, service := range serviceNames() {
		v.that(f.outboxes[service] == 0, "an outbox is not empty", "%s holds %d events", service, f.outboxes[service])
	}
	for _, wrong := range f.machine {
		v.that(false, "a process misbehaved", "%s", wrong)
	}
	for i := range v.found {
		slices.SortFunc(v.found[i].ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	}
	return v.found
}

// checkRequests holds what clients were told against what is stored.
func (f *facts) checkRequests(v *verdict) {
	v.that(f.unanswered == 0, "a request never got an answer", "%d were sent again and again under their keys", f.unanswered)
	stored := map[int64]uuid.UUID{}
	for id, o := range f.orders {
		if o.Amount < 1 || o.Amount > int64(len(f.requests)) {
			v.order(id, "an order was asked for by nobody")
			continue
		}
		if _, twice := stored[o.Amount]; twice {
			v.order(id, "a request is stored as two orders")
			continue
		}
		stored[o.Amount] = id
		r := f.requests[o.Amount-1]
		if o.User != r.user || o.Currency != "EUR" || !sameItems(o.Items, r.items) {
			v.order(id, "an order is not what was asked for")
		}
	}
	for _, r := range f.requests {
		if r.order == uuid.Nil {
			continue
		}
		if id, ok := stored[r.n]; !ok {
			v.order(r.order, "an order that was acknowledged is lost")
		} else if id != r.order {
			v.order(r.order, "a request was acknowledged with another order than is stored")
		} else if !r.cancelled.IsZero() && f.orders[id].Status != "CANCELLED" {
			v.order(id, "an order whose cancellation was acknowledged is not cancelled")
		}
	}
}

// checkBooks holds the three services' states of each order against each other.
func (f *facts) checkBooks(v *verdict) {
	for id, o := range f.orders {
		r, p := f.reservations[id], f.payments[id]
		reserved := r != nil && r.Status == "RESERVED"
		paid := p != nil && p.Status == "COMPLETED"
		switch o.Status {
		case "CONFIRMED":
			switch {
			case !paid:
				v.order(id, "a confirmed order is not paid")
			case p.Amount != o.Amount || p.Currency != o.Currency || p.User != o.User:
				v.order(id, "a confirmed order is paid with another amount")
			}
			switch {
			case !reserved:
				v.order(id, "a confirmed order has nothing reserved")
			case !sameItems(r.Items, o.Items):
				v.order(id, "a confirmed order has something else reserved")
			}
		case "CANCELLED":
			if reserved {
				v.order(id, "a cancelled order holds stock")
			}
			if paid {
				v.order(id, "a cancelled order holds money")
			}
			if o.heard("payment.completed") && !paid && (p == nil || p.Status != "REFUNDED") {
				v.order(id, "a cancelled order was paid and is not refunded")
			}
		default:
			v.order(id, "an order is not terminal")
		}
		if open := o.Status == "PENDING" || o.Status == "CANCELLING"; open != (o.Settled == nil) {
			v.order(id, "an order's status and the time it settled disagree")
		}
	}
	for id := range f.reservations {
		if f.orders[id] == nil {
			v.order(id, "stock was asked for without an order")
		}
	}
	for id := range f.payments {
		if f.orders[id] == nil {
			v.order(id, "a payment was asked for without an order")
		}
	}
}

func (f *facts) checkProducts(v *verdict) {
	held := map[string]int64{}
	for _, r := range f.reservations {
		if r.Status == "RESERVED" {
			for _, i := range r.Items {
				held[i.ProductID] += i.Quantity
			}
		}
	}
	for _, p := range f.products {
		in := f.stock[p.ID]
		v.that(p.Stock == in && p.Available+p.Reserved == in && p.Available >= 0 && p.Reserved == held[p.ID], "a product does not add up",
			"%s: %d units put in; stock %d, available %d, reserved %d, held by orders %d", p.ID, in, p.Stock, p.Available, p.Reserved, held[p.ID])
	}
	v.that(len(f.products) == len(f.stock), "a product does not add up", "there are %d, %d were put in", len(f.products), len(f.stock))
}

// checkWitness holds the count of a handler that is not idempotent against the orders, and its events against order and
// completeness.
func (f *facts) checkWitness(v *verdict) {
	want := map[string]int64{}
	for id, o := range f.orders {
		if !o.confirmed() {
			continue
		}
		want[witness.BucketOf(id)]++
		switch n := f.counted[id]; {
		case n == 0:
			v.order(id, "the witness has not counted an order that was confirmed")
		case n > 1:
			v.order(id, "the witness has counted an order more than once")
		}
	}
	for id := range f.counted {
		if o := f.orders[id]; o == nil || !o.confirmed() {
			v.order(id, "the witness has counted an order that was not confirmed")
		}
	}
	for bucket, n := range f.tally {
		v.that(n == want[bucket], "the witness's tally is wrong", "bucket %s says %d for %d confirmed orders", bucket, n, want[bucket])
		v.that(ascends(f.counts[bucket], n), "events of one key are missing or out of order",
			"%s of bucket %s should tell 1 to %d: %s", witness.Counted.Name(), bucket, n, firstGap(f.counts[bucket]))
	}
}

// ascends tells whether numbers, of which some may come again, are 1 to n by their first occurrences.
func ascends(numbers []int64, n int64) bool {
	next := int64(1)
	for _, x := range numbers {
		switch {
		case x == next:
			next++
		case x > next:
			return false
		}
	}
	return next == n+1
}

func firstGap(numbers []int64) string {
	next := int64(1)
	for i, x := range numbers {
		if x > next {
			return fmt.Sprintf("record %d says %d where %d is due", i, x, next)
		}
		if x == next {
			next++
		}
	}
	return fmt.Sprintf("they end at %d", next-1)
}

// checkDeadLetters demands that poison, and nothing else, is buried, by each group that has met it.
func (f *facts) checkDeadLetters(v *verdict) {
	buried := f.buried(f.poisoned)
	known := map[string]bool{}
	for _, p := range f.poisoned {
		known[p.place] = p.place != ""
	}
	for _, d := range f.dead {
		v.that(d.poison != "" || known[d.from], "a message that is no poison was buried", "%s, from %s: %s", d.place, d.topic, d.reason)
		v.that(d.reason != "", "a dead letter says no reason", "%s", d.place)
	}
	for _, p := range f.poisoned {
		for _, group := range groupsOf()[p.topic] {
			v.that(p.free || buried[group+" "+p.id], "poison is not in the dead letter topic", "%s has not buried %q of %s", group, p.value, p.topic)
		}
	}
	for _, s := range f.strays {
		v.that(false, "a record is no event", "%s: %s", s.place, s.reason)
	}
}

// buried tells which poison each group has buried, by group and id. A message that is too large for a dead letter is
// known by the place that its letter names.
func (f *facts) buried(sent []poisoned) map[string]bool {
	ids := map[string]string{}
	for _, p := range sent {
		if p.place != "" {
			ids[p.place] = p.id
		}
	}
	buried := map[string]bool{}
	for _, d := range f.dead {
		buried[d.group+" "+cmp.Or(d.poison, ids[d.from])] = true
	}
	return buried
}

func sameItems(a, b []item) bool {
	byProduct := func(items []item) []item {
		return slices.SortedFunc(slices.Values(items), func(x, y item) int { return cmp.Compare(x.ProductID, y.ProductID) })
	}
	return slices.Equal(byProduct(a), byProduct(b))
}
