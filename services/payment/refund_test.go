package payment

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// clockAt is a clock that stands still until it is moved.
type clockAt struct{ at atomic.Int64 }

func newClock() *clockAt {
	c := &clockAt{}
	c.at.Store(time.Now().UnixNano())
	return c
}

func (c *clockAt) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clockAt) advance(d time.Duration) { c.at.Add(int64(d)) }

// retry lets n instances try what is due, at once, and returns what they say.
func (b bundle) retry(n int) []string {
	b.Helper()
	var g errgroup.Group
	for range n {
		r := retrier{cashier: newCashier(b.Config), db: b.db, log: slog.New(slog.DiscardHandler)}
		g.Go(func() (err error) {
			for more := true; more && err == nil; {
				more, err = r.next(b.Context())
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return b.told(sagatest.Drain(b.T, b.db)...)
}

// record is the n-th order's payment.
func (b bundle) record(n int) Record {
	b.Helper()
	p, ok, err := findPayment(b.Context(), b.db, order(n))
	if err != nil || !ok {
		b.Fatalf("payment of order %d: %t, %v", n, ok, err)
	}
	return p
}

func TestRefund(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "ada", 700), reserved(t, 2, "mallory", 5), reserved(t, 3, "ada", 50))
	p := b.payments()[order(1)]
	want(t, []int64{plenty - 750, 750}, []int64{b.balance("ada"), b.balance("merchant.EUR")})
	paidBack := fmt.Sprintf("%s: paid back 700 of %s", order(1), p.ID)
	refused := order(2).String() + ": user mallory is declined"

	first := cancelled(t, 1)
	want(t, []string{paidBack, refused}, b.told(b.deliver(first, cancelled(t, 2))...))
	want(t, []int64{plenty - 50, 50}, []int64{b.balance("ada"), b.balance("merchant.EUR")})
	got := b.record(1)
	if got.Status != Refunded || got.Refund.State != "DONE" || got.Refund.Attempts != 1 || got.Refund.DoneAt == nil {
		t.Errorf("it is stored as %+v, refund %+v", got, got.Refund)
	}

	// The same message again is nothing, and another one that asks for the same gets the same, also without the key's
	// answer.
	want(t, nil, b.told(b.deliver(first)...))
	want(t, []string{paidBack}, b.told(b.deliver(cancelled(t, 1))...))
	if _, err := b.db.Exec(t.Context(), `DELETE FROM idempotency`); err != nil {
		t.Fatal(err)
	}
	want(t, []string{paidBack, paidBack}, b.told(b.deliver(cancelled(t, 1), cancelled(t, 1))...))
	// That it was paid stays a fact.
	want(t, []string{fmt.Sprintf("%s: paid 700 with %s", order(1), p.ID)}, b.told(b.deliver(reserved(t, 1, "ada", 700))...))
	want(t, []int64{plenty - 50, 50}, []int64{b.balance("ada"), b.balance("merchant.EUR")})
	b.audit()
}

// A cancellation that comes before the charge refuses it.
func TestRefundBeforeTheCharge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	told := order(1).String() + ": the order was cancelled: changed my mind"
	want(t, []string{told}, b.told(b.deliver(cancelled(t, 1))...))
	want(t, []string{told}, b.told(b.deliver(reserved(t, 1, "ada", 700))...))
	want(t, []string{told}, b.told(b.deliver(cancelled(t, 1))...))
	want(t, Payment{OrderID: order(1), ID: b.record(1).ID, Status: Failed, Reason: "the order was cancelled: changed my mind", ReasonCode: event.CodeOrderCancelled}, b.record(1).Payment)
	want(t, int64(plenty), b.balance("ada"))
	b.audit()
}

// A merchant's account that cannot pay makes the refund wait, for as long as that lasts.
func TestFrozenMerchantPaysLater(t *testing.T) {
	t.Parallel()
	b := setup(t)
	clock := newClock()
	b.now = clock.now
	b.deliver(reserved(t, 1, "ada", 700), reserved(t, 2, "bob", 300))
	p := b.payments()[order(1)]
	b.freeze("merchant.EUR", true)
	asked := cancelled(t, 1)
	said := b.deliver(asked)
	want(t, []string{order(1).String() + ": not paid back: account merchant.EUR is frozen"}, b.told(said...))
	want(t, nil, b.told(b.deliver(cancelled(t, 1))...)) // it is told of once
	want(t, nil, b.retry(1))                            // nothing is due

	for range 3 {
		clock.advance(time.Minute)
		want(t, nil, b.retry(4))
	}
	got := b.record(1)
	if got.Status != Completed || got.Refund.State != "WAITING" || got.Refund.Attempts != 4 || got.Refund.LastError != "account merchant.EUR is frozen" {
		t.Errorf("it is stored as %+v, refund %+v", got, got.Refund)
	}
	want(t, []int64{plenty - 700, 1000}, []int64{b.balance("ada"), b.balance("merchant.EUR")})
	b.audit()

	b.freeze("merchant.EUR", false)
	want(t, nil, b.retry(1)) // its time has not come
	clock.advance(time.Minute)
	want(t, []string{fmt.Sprintf("%s: paid back 700 of %s", order(1), p.ID)}, b.retry(4))
	want(t, []int64{plenty, 300}, []int64{b.balance("ada"), b.balance("merchant.EUR")})
	got = b.record(1)
	if got.Status != Refunded || got.Refund.State != "DONE" || got.Refund.Attempts != 5 {
		t.Errorf("it is stored as %+v, refund %+v", got, got.Refund)
	}
	want(t, []string{fmt.Sprintf("%s: paid back 700 of %s", order(1), p.ID)}, b.told(b.deliver(cancelled(t, 1))...))
	want(t, nil, b.retry(1))
	b.audit()
}

// A poll of everything at once comes out as its messages would one by one: what is paid back first leaves nothing for
// the next, what was never charged is marked, and what is asked twice is done once and told of once if it waits.
func TestRefundsTogether(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.metrics = newMetrics()
	b.deliver(reserved(t, 1, "ada", 700), reserved(t, 2, "bob", 300), reserved(t, 3, "mallory", 5), reserved(t, 4, "ada", 20))
	b.deliver(cancelled(t, 4))
	want(t, "", b.move(eur(Move, "merchant.EUR", "bob", 200))) // 800 are left
	p := b.payments()
	paid := func(n int) string {
		return fmt.Sprintf("%s: paid back %d of %s", order(n), p[order(n)].Amount, p[order(n)].ID)
	}
	said := b.told(b.deliver(cancelled(t, 2), cancelled(t, 1), cancelled(t, 5), cancelled(t, 3), cancelled(t, 1), cancelled(t, 4), cancelled(t, 2))...)
	want(t, []string{
		paid(2), order(1).String() + ": not paid back: insufficient balance: 700 wanted, 500 available",
		order(5).String() + ": the order was cancelled: changed my mind", order(3).String() + ": user mallory is declined", paid(4), paid(2),
	}, said)
	want(t, []string{"WAITING", "DONE"}, []string{b.record(1).Refund.State, b.record(2).Refund.State})
	want(t, []int64{plenty - 700, plenty + 200, 500}, []int64{b.balance("ada"), b.balance("bob"), b.balance("merchant.EUR")})
	tried := b.metrics.attempts
	want(t, []float64{2, 1}, []float64{testutil.ToFloat64(tried.WithLabelValues(attemptRefunded)), testutil.ToFloat64(tried.WithLabelValues(attemptRefused))})
	b.audit()
}

// The event that tells of a refund's end belongs to the saga that asked for it.
func TestLateRefundKeepsItsCause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	clock := newClock()
	b.now = clock.now
	b.deliver(reserved(t, 1, "ada", 700))
	b.freeze("merchant.EUR", true)
	asked := cancelled(t, 1)
	failed := b.deliver(asked)[0]
	b.freeze("merchant.EUR", false)
	clock.advance(time.Minute)
	b.retryOnce()
	done := sagatest.Drain(t, b.db)[0]
	want(t, asked.Header("ce_id"), done.Header("ce_causationid"))
	want(t, failed.Header("ce_correlationid"), done.Header("ce_correlationid"))
	want(t, failed.Header("traceparent")[:35], done.Header("traceparent")[:35])
	if failed.Header("ce_id") == done.Header("ce_id") || string(done.Key) != order(1).String() {
		t.Errorf("event %s of %s", done.Header("ce_id"), done.Key)
	}
}

func (b bundle) retryOnce() {
	b.Helper()
	r := retrier{cashier: newCashier(b.Config), db: b.db, log: slog.New(slog.DiscardHandler)}
	if more, err := r.next(b.Context()); err != nil || !more {
		b.Fatalf("nothing was due, %v", err)
	}
}

// A merchant who has paid the money out gives it back when there is some again, first to whom has waited longest.
func TestMerchantWithoutMoney(t *testing.T) {
	t.Parallel()
	b := setup(t)
	clock := newClock()
	b.now = clock.now
	b.deliver(reserved(t, 1, "ada", 700), reserved(t, 2, "bob", 800))
	want(t, "", b.move(eur(Move, "merchant.EUR", "ada", 1500)))
	b.deliver(cancelled(t, 1))
	clock.advance(time.Millisecond)
	want(t, []string{order(2).String() + ": not paid back: insufficient balance: 800 wanted, 0 available"}, b.told(b.deliver(cancelled(t, 2))...))
	b.deposit("merchant.EUR", 900)
	clock.advance(time.Hour)
	if said := b.retry(2); len(said) != 1 {
		t.Errorf("with money for one: %v", said)
	}
	b.deposit("merchant.EUR", 700)
	clock.advance(time.Hour)
	if said := b.retry(2); len(said) != 1 {
		t.Errorf("with money for the other: %v", said)
	}
	want(t, []int64{plenty + 1500, plenty, 100}, []int64{b.balance("ada"), b.balance("bob"), b.balance("merchant.EUR")})
	b.audit()
}

// An order's charge and its refund at the same moment: one of them comes first, and both know which.
func TestChargeAndRefundRace(t *testing.T) {
	t.Parallel()
	const orders = 40
	b := setup(t)
	cfg := saga.Config{DB: b.db, Backoff: time.Millisecond}
	var g errgroup.Group
	for n := range orders {
		for _, r := range []broker.Record{reserved(t, n, fmt.Sprintf("user-%d", n%5), 10), cancelled(t, n)} {
			g.Go(func() error { return saga.Deliver(t.Context(), Choreography(b.Config), cfg, r) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for _, r := range sagatest.Drain(t, b.db) {
		said[string(r.Key)] = append(said[string(r.Key)], r.Topic)
	}
	for id, p := range b.payments() {
		expected := []string{event.PaymentCompleted.Name(), event.PaymentRefunded.Name()}
		if p.Status == Failed {
			expected = []string{event.PaymentFailed.Name(), event.PaymentFailed.Name()}
		}
		got := said[id.String()]
		slices.Sort(got)
		if !slices.Equal(expected, got) || p.Status == Completed {
			t.Errorf("order %s is %s (%s), and said %v", id, p.Status, p.Reason, got)
		}
	}
	for n := range 5 {
		want(t, int64(plenty), b.balance(fmt.Sprintf("user-%d", n)))
	}
	want(t, int64(0), b.balance("merchant.EUR"))
	b.audit()
}

// Polls of refunds in two currencies, in any order and with the same orders, on several instances: each is paid back
// once.
func TestInstancesRefundOnce(t *testing.T) {
	t.Parallel()
	const instances, orders = 4, 40
	b := setup(t)
	for n := range orders {
		e := event.InventoryReservedV1{OrderID: order(n), UserID: fmt.Sprintf("user-%d", n%2), Amount: 10, Currency: []string{"EUR", "USD"}[n%2]}
		b.deliver(sagatest.Record(t, saga.New(t.Context(), event.InventoryReserved, order(n).String(), e)))
	}
	metrics := b.retries(instances, func(i int) [][]broker.Record {
		polls := make([][]broker.Record, 4)
		for n := range orders {
			polls[(n+i)%4] = append(polls[(n+i)%4], cancelled(t, (n*7+i*13)%orders))
		}
		return polls
	})
	said := map[string]int{}
	for _, r := range sagatest.Drain(t, b.db) {
		said[told(t, r)]++
	}
	for line, times := range said {
		if times != instances || !strings.Contains(line, "paid back 10") {
			t.Errorf("said %d times, want %d: %s", times, instances, line)
		}
	}
	if len(said) != orders || metrics != nil {
		t.Errorf("spoke of %d orders, want %d; transactions done again: %v", len(said), orders, metrics)
	}
	want(t, []int64{plenty, plenty, 0, 0}, []int64{b.balance("user-0"), b.balance("user-1"), b.balance("merchant.EUR"), b.balance("merchant.USD")})
	b.audit()
}
