package soak

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// sound is facts about four orders, one of each outcome, with which nothing is wrong; and the ids of the orders.
func sound() (f *facts, confirmed, declined, refused, refunded uuid.UUID) {
	f = &facts{
		stock:  map[string]int64{"plenty-0": 100, "scarce-0": 0},
		orders: map[uuid.UUID]*orderRow{}, reservations: map[uuid.UUID]*reservationRow{}, payments: map[uuid.UUID]*paymentRow{},
		outboxes: map[string]int{}, counted: map[uuid.UUID]int{}, tally: map[string]int64{},
		topics: map[string]map[uuid.UUID][]record{}, counts: map[string][]int64{},
		checks: 1, excused: excused(nil, 0),
	}
	for _, topic := range eventTopics() {
		f.topics[topic] = map[uuid.UUID][]record{}
	}
	now := time.Now()
	place := func(status string, items ...item) uuid.UUID {
		r := &request{n: int64(len(f.requests) + 1), user: "user-1", items: items, order: uuid.New(), sent: now, acked: now}
		f.requests = append(f.requests, r)
		f.orders[r.order] = &orderRow{User: r.user, Items: items, Amount: r.n, Currency: "EUR", Status: status, Created: now, Settled: &now}
		return r.order
	}
	tell := func(id uuid.UUID, topics ...string) {
		var cause uuid.UUID
		for _, topic := range topics {
			r := record{id: uuid.New(), cause: cause, partition: 3, at: now, amount: f.orders[id].Amount}
			if strings.HasPrefix(topic, "payment.") && f.payments[id] != nil {
				r.payment = f.payments[id].ID
			}
			if topic != "inventory.released" { // which comes beside the cancellation, not before it
				cause = r.id
			}
			f.topics[topic][id] = append(f.topics[topic][id], r)
		}
	}
	one := item{"plenty-0", 1}
	confirmed = place("CONFIRMED", one)
	f.reservations[confirmed] = &reservationRow{Status: "RESERVED", Items: []item{one}, Created: now}
	f.payments[confirmed] = &paymentRow{ID: uuid.New(), User: "user-1", Amount: 1, Currency: "EUR", Status: "COMPLETED", Created: now}
	tell(confirmed, "order.created", "inventory.reserved", "payment.completed", "order.confirmed")
	witnessed := func(id uuid.UUID) {
		bucket := id.String()[35:]
		f.counted[id]++
		f.tally[bucket]++
		f.counts[bucket] = append(f.counts[bucket], f.tally[bucket], f.tally[bucket])
	}
	witnessed(confirmed)

	declined = place("CANCELLED", one)
	f.reservations[declined] = &reservationRow{Status: "RELEASED", Items: []item{one}, Created: now}
	f.payments[declined] = &paymentRow{ID: uuid.New(), User: "user-1", Amount: 2, Currency: "EUR", Status: "FAILED", Created: now}
	tell(declined, "order.created", "inventory.reserved", "payment.failed", "inventory.released", "order.cancelled")

	refused = place("CANCELLED", item{"scarce-0", 1})
	f.reservations[refused] = &reservationRow{Status: "REFUSED", Reason: "out of stock"}
	tell(refused, "order.created", "inventory.reservation.failed", "order.cancelled", "inventory.released")

	refunded = place("CANCELLED", one)
	f.orders[refunded].History = []entry{
		{Status: "CONFIRMED", Event: "payment.completed"}, {Status: "CANCELLING", Event: "order.cancel.requested"},
		{Status: "CANCELLING", Event: "inventory.released"}, {Status: "CANCELLED", Event: "payment.refunded"},
	}
	f.reservations[refunded] = &reservationRow{Status: "RELEASED", Items: []item{one}, Created: now}
	f.payments[refunded] = &paymentRow{ID: uuid.New(), User: "user-1", Amount: 4, Currency: "EUR", Status: "REFUNDED", Created: now}
	tell(refunded, "order.created", "inventory.reserved", "payment.completed", "order.confirmed")
	tell(refunded, "order.cancel.requested", "payment.refunded", "inventory.released", "order.cancelled")
	f.topics["inventory.released"][refunded] = append(f.topics["inventory.released"][refunded],
		record{id: uuid.New(), cause: f.topics["order.cancelled"][refunded][0].id, partition: 3}) // each cause has its own
	witnessed(refunded)

	f.ledger = ledger{
		balances: map[string]int64{"external.EUR": -100, "user-1": 99, "merchant.EUR": 1},
		entries:  map[string]int64{"external.EUR": -100, "user-1": 99, "merchant.EUR": 1},
		moved: map[uuid.UUID]movement{
			uuid.New():               {kind: "opening", entries: 2, from: "external.EUR", to: "user-1", amount: 100},
			f.payments[confirmed].ID: {kind: "charge", entries: 2, from: "user-1", to: "merchant.EUR", amount: 1},
			f.payments[refunded].ID:  {kind: "charge", entries: 2, from: "user-1", to: "merchant.EUR", amount: 4},
			uuid.New():               {kind: "refund", entries: 2, from: "merchant.EUR", to: "user-1", amount: 4},
		},
	}
	f.products = []productRow{{"plenty-0", 100, 99, 1}, {"scarce-0", 0, 0, 0}}
	f.poisoned = []poisoned{{id: "p", topic: "order.created", value: "{"}}
	f.dead = []deadLetter{{place: "inventory.dlq/0 at 0", group: "inventory", topic: "order.created", reason: "decode", poison: "p"}}
	return f, confirmed, declined, refused, refunded
}

func TestNothingIsWrongWithSoundFacts(t *testing.T) {
	f, _, _, _, _ := sound()
	if found := check(f); len(found) > 0 {
		t.Errorf("violations %v", found)
	}
}

// Each row breaks one fact, and the checker names it.
func TestEachBrokenFactIsNamed(t *testing.T) {
	for rule, damage := range map[string]func(f *facts, confirmed, declined, refused uuid.UUID){
		"an order that was acknowledged is lost": func(f *facts, c, _, _ uuid.UUID) { delete(f.orders, c) },
		"an order is not terminal":               func(f *facts, c, _, _ uuid.UUID) { f.orders[c].Status = "PENDING" },
		"an order is not what was asked for":     func(f *facts, c, _, _ uuid.UUID) { f.orders[c].Items = nil },
		"a request is stored as two orders":      func(f *facts, c, _, _ uuid.UUID) { twin := *f.orders[c]; f.orders[uuid.New()] = &twin },
		"an order was asked for by nobody": func(f *facts, c, _, _ uuid.UUID) {
			twin := *f.orders[c]
			twin.Amount = 99
			f.orders[uuid.New()] = &twin
		},
		"a confirmed order is not paid":                 func(f *facts, c, _, _ uuid.UUID) { delete(f.payments, c) },
		"a confirmed order is paid with another amount": func(f *facts, c, _, _ uuid.UUID) { f.payments[c].Amount++ },
		"a confirmed order has nothing reserved":        func(f *facts, c, _, _ uuid.UUID) { f.reservations[c].Status = "RELEASED" },
		"a confirmed order has something else reserved": func(f *facts, c, _, _ uuid.UUID) { f.reservations[c].Items = []item{{"plenty-0", 2}} },
		"a cancelled order holds stock":                 func(f *facts, _, d, _ uuid.UUID) { f.reservations[d].Status = "RESERVED" },
		"a cancelled order holds money":                 func(f *facts, _, d, _ uuid.UUID) { f.payments[d].Status = "COMPLETED" },
		"a payment moved no money":                      func(f *facts, c, _, _ uuid.UUID) { delete(f.ledger.moved, f.payments[c].ID) },
		"a payment moved other money than it says": func(f *facts, c, _, _ uuid.UUID) {
			f.ledger.moved[f.payments[c].ID] = movement{kind: "charge", entries: 2, from: "user-2", to: "merchant.EUR", amount: 1}
		},
		"a failed payment moved money": func(f *facts, _, d, _ uuid.UUID) {
			f.ledger.moved[f.payments[d].ID] = movement{kind: "charge", entries: 2}
		},
		"money was moved for no payment":                  func(f *facts, _, _, _ uuid.UUID) { f.ledger.moved[uuid.New()] = movement{kind: "charge", entries: 2} },
		"money was made or lost":                          func(f *facts, _, _, _ uuid.UUID) { f.ledger.balances["user-1"]++; f.ledger.entries["user-1"]++ },
		"an account is below zero":                        func(f *facts, _, _, _ uuid.UUID) { f.ledger.balances["user-1"] = -1 },
		"the merchant does not hold what was paid":        func(f *facts, c, _, _ uuid.UUID) { f.payments[c].Amount++ },
		"an account does not hold the sum of its entries": func(f *facts, _, _, _ uuid.UUID) { f.ledger.entries["user-1"]++ },
		"a transfer is not two entries that sum to zero": func(f *facts, _, _, _ uuid.UUID) {
			f.ledger.moved[uuid.New()] = movement{kind: "opening", entries: 1, sum: 5}
		},
		"a product does not add up":                         func(f *facts, _, _, _ uuid.UUID) { f.products[0].Available-- },
		"an outbox is not empty":                            func(f *facts, _, _, _ uuid.UUID) { f.outboxes["payment"] = 1 },
		"a state has no order.confirmed in its topic":       func(f *facts, c, _, _ uuid.UUID) { delete(f.topics["order.confirmed"], c) },
		"order.confirmed is in its topic without its state": func(f *facts, c, _, r uuid.UUID) { f.topics["order.confirmed"][r] = f.topics["order.confirmed"][c] },
		"two different payment.completed are in the topic": func(f *facts, c, _, _ uuid.UUID) {
			f.topics["payment.completed"][c] = append(f.topics["payment.completed"][c], record{id: uuid.New(), partition: 3})
		},
		"one order's events are in more than one partition":             func(f *facts, c, _, _ uuid.UUID) { f.topics["order.confirmed"][c][0].partition = 4 },
		"order.confirmed has no cause in the topics":                    func(f *facts, c, _, _ uuid.UUID) { f.topics["order.confirmed"][c][0].cause = uuid.New() },
		"payment.completed tells of another payment than is stored":     func(f *facts, c, _, _ uuid.UUID) { f.payments[c].ID = uuid.New() },
		"an order whose cancellation was acknowledged is not cancelled": func(f *facts, c, _, _ uuid.UUID) { f.requests[0].cancelled = time.Now() },
		"the witness has not counted an order that was confirmed":       func(f *facts, c, _, _ uuid.UUID) { delete(f.counted, c) },
		"the witness has counted an order more than once":               func(f *facts, c, _, _ uuid.UUID) { f.counted[c] = 2 },
		"the witness has counted an order that was not confirmed":       func(f *facts, _, d, _ uuid.UUID) { f.counted[d] = 1 },
		"the witness's tally is wrong":                                  func(f *facts, c, _, _ uuid.UUID) { f.tally[c.String()[35:]]++ },
		"events of one key are missing or out of order":                 func(f *facts, c, _, _ uuid.UUID) { f.counts[c.String()[35:]] = []int64{2, 1} },
		"poison is not in the dead letter topic":                        func(f *facts, _, _, _ uuid.UUID) { f.dead = nil },
		"a message that is no poison was buried":                        func(f *facts, _, _, _ uuid.UUID) { f.dead[0].poison = "" },
		"a request never got an answer":                                 func(f *facts, _, _, _ uuid.UUID) { f.unanswered = 1 },
		"a process misbehaved":                                          func(f *facts, _, _, _ uuid.UUID) { f.machine = []string{"panic"} },
	} {
		t.Run(rule, func(t *testing.T) {
			f, confirmed, declined, refused, _ := sound()
			damage(f, confirmed, declined, refused)
			found := check(f)
			if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == rule }) {
				t.Errorf("violations %v", found)
			}
		})
	}
}

// And so of the order that was cancelled after all.
func TestEachBrokenFactOfARefundIsNamed(t *testing.T) {
	for rule, damage := range map[string]func(f *facts, id uuid.UUID){
		"an order is not terminal":                           func(f *facts, id uuid.UUID) { f.orders[id].Status = "CANCELLING" },
		"a cancelled order holds money":                      func(f *facts, id uuid.UUID) { f.payments[id].Status = "COMPLETED" },
		"a cancelled order was paid and is not refunded":     func(f *facts, id uuid.UUID) { f.payments[id].Status = "FAILED" },
		"a cancelled order holds stock":                      func(f *facts, id uuid.UUID) { f.reservations[id].Status = "RESERVED" },
		"a state has no payment.refunded in its topic":       func(f *facts, id uuid.UUID) { delete(f.topics["payment.refunded"], id) },
		"a state has no order.cancel.requested in its topic": func(f *facts, id uuid.UUID) { delete(f.topics["order.cancel.requested"], id) },
		"order.cancelled has no cause in the topics":         func(f *facts, id uuid.UUID) { f.topics["order.cancelled"][id][0].cause = uuid.New() },
		"two different inventory.released are in the topic": func(f *facts, id uuid.UUID) {
			twin := f.topics["inventory.released"][id][0]
			twin.id = uuid.New()
			f.topics["inventory.released"][id] = append(f.topics["inventory.released"][id], twin)
		},
		"the witness has not counted an order that was confirmed": func(f *facts, id uuid.UUID) { delete(f.counted, id) },
	} {
		t.Run(rule, func(t *testing.T) {
			f, _, _, _, refunded := sound()
			damage(f, refunded)
			if found := check(f); !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == rule }) {
				t.Errorf("violations %v", found)
			}
		})
	}
}

func TestTimelineHoldsTheFaultsAround(t *testing.T) {
	f, confirmed, _, _, _ := sound()
	now := time.Now()
	text := timeline(confirmed, f.moments(confirmed, f.requests[0]), []Episode{
		{Fault: "kill", On: "payment", Start: now.Add(-time.Second), End: now},
		{Fault: "zombie", On: "order", Start: now.Add(time.Minute), End: now.Add(2 * time.Minute)},
	})
	for _, want := range []string{"request 1", "acknowledged", "order.created/3", "payment: 1 of user-1", "fault: kill on payment begins"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "zombie") {
		t.Errorf("a fault of another time is in\n%s", text)
	}
}

func TestAscends(t *testing.T) {
	for _, tc := range []struct {
		numbers []int64
		n       int64
		want    bool
	}{
		{nil, 0, true}, {[]int64{1, 2, 3}, 3, true}, {[]int64{1, 2, 1, 2, 3}, 3, true},
		{[]int64{1, 3, 2}, 3, false}, {[]int64{1, 2}, 3, false}, {[]int64{1, 2, 3}, 2, false},
	} {
		if got := ascends(tc.numbers, tc.n); got != tc.want {
			t.Errorf("%v up to %d: %v", tc.numbers, tc.n, got)
		}
	}
}

func TestStandstill(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	settled := []time.Time{at(0), at(1), at(2), at(7), at(8), at(9)}
	for _, tc := range []struct{ from, to, end, want float64 }{
		{3, 4, 20, 5}, // the gap from 2 to 7
		{0.5, 1.5, 20, 1},
		{6, 7.5, 20, 5},
		{9.5, 10, 20, 11}, // nothing settled any more
		{9.5, 10, 12, 3},  // and nothing had to after 12
		{-5, -4, 20, 5},   // before the first
	} {
		got := standstill(settled, at(tc.from), at(tc.to), at(tc.end)).Seconds()
		if got != tc.want {
			t.Errorf("from %g to %g, end %g: %g s, want %g", tc.from, tc.to, tc.end, got, tc.want)
		}
	}
}

// The same seed does the same.
func TestScheduleIsSeeded(t *testing.T) {
	plan := func(seed uint64) (names []string) {
		w := &world{opts: Options{Seed: seed, Duration: time.Minute}, small: "payment"}
		if err := w.opts.defaults(); err != nil {
			t.Fatal(err)
		}
		s := newSchedule(&w.opts)
		for range 20 {
			for _, p := range s.next(w, time.Minute) {
				names = append(names, p.name+" on "+p.victim)
			}
			names = append(names, "|")
		}
		return names
	}
	if a, b := plan(5), plan(5); !slices.Equal(a, b) {
		t.Errorf("two plans of one seed:\n%v\n%v", a, b)
	}
	if a, b := plan(5), plan(6); slices.Equal(a, b) {
		t.Error("two seeds, one plan")
	}
	for _, name := range FaultNames() {
		if !slices.ContainsFunc(plan(5), func(s string) bool { return strings.HasPrefix(s, name+" ") }) {
			t.Errorf("%s never comes", name)
		}
	}
}

func TestResumption(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	settled := []time.Time{at(1), at(9)}
	e := Episode{Fault: "kill", Start: at(2), End: at(4)}
	for name, tc := range map[string]struct {
		others []Episode
		end    float64
		want   float64
	}{
		"alone":                   {nil, 20, 5},
		"another began":           {[]Episode{{Fault: "zombie", Start: at(5), End: at(8)}}, 20, 0},
		"another was over before": {[]Episode{{Fault: "zombie", Start: at(1), End: at(3)}}, 20, 5},
		"another came after":      {[]Episode{{Fault: "zombie", Start: at(10), End: at(11)}}, 20, 5},
		"the load had ended":      {nil, 8, 0},
	} {
		got, ok := resumption(e, append(tc.others, e), settled, at(tc.end))
		if got.Seconds() != tc.want || ok != (tc.want > 0) {
			t.Errorf("%s: %s, %t; want %g s", name, got, ok, tc.want)
		}
	}
}
