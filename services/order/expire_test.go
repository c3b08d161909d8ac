package order

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

const deadline = 15 * time.Minute

// set puts the clock of cancellations at a time.
func (c client) set(at time.Time) { c.clock.Store(&at) }

func (c client) sweep(t testing.TB, s *sweeper) int {
	t.Helper()
	n, err := s.sweep(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An order that is PENDING past its deadline is cancelled as by its user, once, by whichever instance comes first; one
// that has settled, or is young, is not. Slices end anywhere, also at an order that is to be cancelled.
func TestExpiry(t *testing.T) {
	t.Parallel()
	c := setup(t)
	began := time.Now()
	var old []uuid.UUID
	for range 7 {
		old = append(old, c.placed(t, draft("u-1")).ID)
	}
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, old[1]), outOfStock(t, old[5]))
	c.set(began.Add(deadline - time.Millisecond))
	s, other := newSweeper(c.commands, deadline, nil), newSweeper(c.commands, deadline, nil)
	s.rows, other.rows = 3, 2
	if n := c.sweep(t, s); n != 0 {
		t.Errorf("%d orders are cancelled before their time", n)
	}

	c.set(time.Now().Add(deadline + time.Second))
	if n := c.sweep(t, s); n != 5 {
		t.Errorf("%d orders are cancelled, want 5", n)
	}
	if n := c.sweep(t, other) + c.sweep(t, s); n != 0 {
		t.Errorf("%d orders are cancelled again", n)
	}
	// One that was PENDING when it was looked for, and has settled since, is left alone.
	if n, err := c.commands.expire(t.Context(), old[1:2]); n != 0 || err != nil {
		t.Errorf("%d orders have expired that were CONFIRMED, %v", n, err)
	}
	var want []string
	for i, id := range old {
		switch i {
		case 1, 5:
			if o := c.order(t, id); o.asked() {
				t.Errorf("order %s had settled: %s", id, outline(o))
			}
			continue
		}
		wantOrder(t, c.order(t, id), `CANCELLED "expired"`+saysCreated+` | CANCELLED order.cancel.requested expired`,
			Compensation{What: "refund", State: "PENDING"}, Compensation{What: "release", State: "PENDING"})
		for _, topic := range []string{"order.cancel.requested", "order.cancelled"} {
			want = append(want, fmt.Sprintf(`%s %s {"orderId":"%[2]s","reason":"expired","code":"expired","parameters":null}`, topic, id))
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, published(t, sagatest.Drain(t, c.db))); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if n := testutil.ToFloat64(c.metrics.expirations); n != 5 {
		t.Errorf("%v expired orders counted", n)
	}
}

// What is committed when the walk has passed its id is found by the one behind it.
func TestExpiryOfWhatIsCommittedLate(t *testing.T) {
	t.Parallel()
	c := setup(t)
	began := time.Now()
	c.set(began)
	s := newSweeper(c.commands, deadline, nil)
	c.set(began.Add(2 * deadline))
	c.sweep(t, s)
	late := newPosting(t.Context(), Draft{UserID: "u-1", Items: []Item{{"p-1", 1}}, Amount: 1, Currency: "EUR"}, "", began)
	late.order.ID = facts.FirstOf(began.Add(deadline - time.Second))
	if _, err := c.placer.place(t.Context(), []posting{late}); err != nil {
		t.Fatal(err)
	}
	if n := c.sweep(t, s); n != 0 {
		t.Fatalf("%d orders are cancelled; the test would show nothing", n)
	}
	c.set(began.Add(2*deadline + lateness))
	if n := c.sweep(t, s); n != 1 {
		t.Errorf("%d orders are cancelled, want the late one", n)
	}
}

// The deadlines of orders run out on two instances while their payments complete: each is CONFIRMED or has expired, and
// says so once.
func TestExpiryRacesPayment(t *testing.T) {
	t.Parallel()
	c := setup(t)
	other := serve(t, c.db)
	const orders = 200
	ids := make([]uuid.UUID, orders)
	records := make([]broker.Record, orders)
	for i := range ids {
		ids[i] = c.placed(t, draft("u-1")).ID
		records[i] = completed(t, ids[i])
	}
	sagatest.Drain(t, c.db)
	slices.Reverse(records)

	ended := make(chan error, 3)
	for _, instance := range []client{c, other} {
		instance.set(time.Now().Add(deadline + time.Minute))
		s := newSweeper(instance.commands, deadline, nil)
		s.rows = 10
		go func() {
			_, err := s.sweep(t.Context())
			ended <- err
		}()
	}
	go func() {
		for some := range slices.Chunk(records, 10) {
			if err := saga.Deliver(t.Context(), choreography(c.metrics), saga.Config{DB: c.db}, some...); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	for range 3 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}

	events := map[string][]string{}
	for _, r := range sagatest.Drain(t, c.db) {
		events[string(r.Key)] = append(events[string(r.Key)], r.Topic)
	}
	ends := map[Status]int{}
	for _, id := range ids {
		o := c.order(t, id)
		want := []string{"order.confirmed"}
		if o.Status == Cancelled {
			want = []string{"order.cancel.requested", "order.cancelled"}
		}
		if said := events[id.String()]; !slices.Equal(want, said) || o.line("payment.completed") == nil {
			t.Errorf("order %s, %s, has told %v", id, outline(o), said)
		}
		ends[o.Status]++
	}
	t.Logf("ends: %v", ends)
	if n := testutil.ToFloat64(c.metrics.expirations) + testutil.ToFloat64(other.metrics.expirations); int(n) != ends[Cancelled] {
		t.Errorf("%v expired orders counted, want %d", n, ends[Cancelled])
	}
}
