package order

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// What the other services may tell about an order.
func completed(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.PaymentCompleted, id.String(),
		event.PaymentCompletedV1{OrderID: id, PaymentID: uuid.Max, Amount: 4200}))
}

func failed(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.PaymentFailed, id.String(),
		event.PaymentFailedV1{OrderID: id, Error: "declined"}))
}

func outOfStock(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.InventoryReservationFailed, id.String(),
		event.InventoryReservationFailedV1{OrderID: id, Error: "out of stock: p-1", Code: event.CodeOutOfStock, Parameters: event.Parameters{"productId": "p-1"}}))
}

func stockBack(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.InventoryReleased, id.String(), event.InventoryReleasedV1{OrderID: id}))
}

// told is what the service tells after a delivery, one line per event.
func published(t testing.TB, records []broker.Record) []string {
	t.Helper()
	lines := make([]string, len(records))
	for i, r := range records {
		lines[i] = fmt.Sprintf("%s %s %s", r.Topic, r.Key, r.Value)
	}
	slices.Sort(lines)
	return lines
}

// outline is an order without its times.
func outline(o Order) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %q", o.Status, o.Reason)
	for _, e := range o.History {
		fmt.Fprintf(&b, " | %s %s %s", e.Status, e.Event, e.Detail)
	}
	return b.String()
}

func TestOrdersSettle(t *testing.T) {
	t.Parallel()
	c := setup(t)
	paid, declined, short, waits := c.placed(t, draft("u-1")).ID, c.placed(t, draft("u-1")).ID, c.placed(t, draft("u-2")).ID, c.placed(t, draft("u-2")).ID
	sagatest.Drain(t, c.db)

	got := published(t, sagatest.Deliver(t, c.db, choreography(c.metrics),
		completed(t, paid), completed(t, paid), failed(t, declined), stockBack(t, declined), outOfStock(t, short)))
	want := []string{
		fmt.Sprintf(`order.confirmed %s {"orderId":"%[1]s"}`, paid),
		fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"declined","code":"","parameters":null}`, declined),
		fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"out of stock: p-1","code":"out-of-stock","parameters":{"productId":"p-1"}}`, short),
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	for id, want := range map[uuid.UUID]string{
		paid:     `CONFIRMED "" | PENDING order.created  | CONFIRMED payment.completed payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200`,
		declined: `CANCELLED "declined" | PENDING order.created  | CANCELLED payment.failed declined | CANCELLED inventory.released `,
		short:    `CANCELLED "out of stock: p-1" | PENDING order.created  | CANCELLED inventory.reservation.failed out of stock: p-1`,
		waits:    `PENDING "" | PENDING order.created `,
	} {
		o := c.order(t, id)
		if diff := cmp.Diff(want, outline(o)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if (o.SettledAt == nil) != (o.Status == Pending) || o.SettledAt != nil && o.SettledAt.Before(o.CreatedAt) {
			t.Errorf("%s since %v", o.Status, o.SettledAt)
		}
	}
	for status, want := range map[Status]float64{Pending: 4, Confirmed: 1, Cancelled: 2} {
		if n := testutil.ToFloat64(c.metrics.orders.WithLabelValues(string(status))); n != want {
			t.Errorf("converge_orders_total of %s is %v, want %v", status, n, want)
		}
	}
	if n := testutil.CollectAndCount(c.metrics.duration); n != 2 {
		t.Errorf("saga durations of %d statuses, want 2", n)
	}
}

// A payment for an order that is cancelled changes nothing here and is not lost either: it is in the history and
// counted.
func TestLateContradictionIsNoted(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Drain(t, c.db)
	sagatest.Deliver(t, c.db, choreography(c.metrics), outOfStock(t, id))
	if out := sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id)); len(out) != 0 {
		t.Errorf("told %v", published(t, out))
	}
	want := `CANCELLED "out of stock: p-1" | PENDING order.created  | CANCELLED inventory.reservation.failed out of stock: p-1` +
		` | CANCELLED payment.completed too late, the order is CANCELLED: payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200`
	if diff := cmp.Diff(want, outline(c.order(t, id))); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if n := testutil.ToFloat64(c.metrics.contradictions.WithLabelValues("payment.completed", "CANCELLED")); n != 1 {
		t.Errorf("%v contradictions counted, want 1", n)
	}
}

// A message about no order of ours is a dead letter and costs the others of its batch nothing.
func TestUnknownOrderIsADeadLetter(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Drain(t, c.db)
	stranger := uuid.Must(uuid.NewV7())
	out := sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, stranger), completed(t, id))
	topics := map[string]string{}
	for _, r := range out {
		topics[r.Topic] = string(r.Key)
	}
	if diff := cmp.Diff(map[string]string{"order.dlq": stranger.String(), "order.confirmed": id.String()}, topics); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

// However events are shuffled, repeated and cut into polls, orders end as if each had come once.
func TestShuffledAndRepeatedDeliveries(t *testing.T) {
	t.Parallel()
	c := setup(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()

	var records []broker.Record
	want := map[uuid.UUID]Status{}
	wantTold := []string{}
	for i := range 60 {
		id := c.placed(t, draft("u-1")).ID
		switch i % 3 {
		case 0:
			records, want[id] = append(records, completed(t, id)), Confirmed
			wantTold = append(wantTold, fmt.Sprintf(`order.confirmed %s {"orderId":"%[1]s"}`, id))
		case 1:
			records, want[id] = append(records, failed(t, id), stockBack(t, id)), Cancelled
			wantTold = append(wantTold, fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"declined","code":"","parameters":null}`, id))
		case 2:
			records, want[id] = append(records, outOfStock(t, id)), Cancelled
			wantTold = append(wantTold, fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"out of stock: p-1","code":"out-of-stock","parameters":{"productId":"p-1"}}`, id))
		}
	}
	sagatest.Drain(t, c.db)

	lines := len(records)
	for range 2 * lines {
		records = append(records, records[rng.IntN(len(records))])
	}
	rng.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	var got []broker.Record
	for len(records) > 0 {
		poll := records[:min(len(records), 1+rng.IntN(40))]
		records = records[len(poll):]
		got = append(got, sagatest.Deliver(t, c.db, choreography(c.metrics), poll...)...)
	}

	slices.Sort(wantTold)
	if diff := cmp.Diff(wantTold, published(t, got)); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	for id, status := range want {
		o := c.order(t, id)
		if o.Status != status || o.SettledAt == nil {
			t.Errorf("order %s is %s since %v, want %s", id, o.Status, o.SettledAt, status)
		}
		lines -= len(o.History) - 1
	}
	if lines != 0 {
		t.Errorf("the histories have %d lines too few", lines)
	}
}
