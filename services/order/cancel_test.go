package order

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func moneyBack(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.PaymentRefunded, id.String(),
		event.PaymentRefundedV1{OrderID: id, PaymentID: uuid.Max, Amount: 4200}))
}

func noMoneyBack(t testing.TB, id uuid.UUID) broker.Record {
	return sagatest.Record(t, saga.New(t.Context(), event.PaymentRefundFailed, id.String(),
		event.PaymentRefundFailedV1{OrderID: id, Error: "account merchant is frozen"}))
}

func (c client) cancel(id uuid.UUID, user, reason string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/orders/"+id.String()+"/cancel",
		strings.NewReader(fmt.Sprintf(`{"userId":%q,"reason":%q}`, user, reason)))
	r.Header.Set("Content-Type", "application/json")
	return c.do(r)
}

// cancelled commands an order and returns the answer.
func (c client) cancelled(t testing.TB, id uuid.UUID) Order {
	t.Helper()
	w := c.cancel(id, "u-1", "mistake")
	if w.Code != http.StatusAccepted {
		t.Fatalf("cancel: %d %s", w.Code, w.Body)
	}
	return parse[Order](t, w)
}

const (
	saysCreated   = " | PENDING order.created "
	saysConfirmed = " | CONFIRMED payment.completed payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200"
)

func wantOrder(t *testing.T, o Order, outlined string, compensations ...Compensation) {
	t.Helper()
	if diff := gocmp.Diff(outlined, outline(o)); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(compensations, o.Compensations); diff != "" {
		t.Errorf("compensations (-want +got):\n%s", diff)
	}
	if open := o.Status == Pending || o.Status == Cancelling; open != (o.SettledAt == nil) {
		t.Errorf("%s since %v", o.Status, o.SettledAt)
	}
}

// A PENDING order is CANCELLED at once; payment undoes what it may have done meanwhile, and that it was overtaken is no
// contradiction.
func TestCancelPending(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Drain(t, c.db)

	answer := c.cancelled(t, id)
	want := `CANCELLED "mistake"` + saysCreated + ` | CANCELLED order.cancel.requested mistake`
	wantOrder(t, answer, want, Compensation{What: "refund", State: "PENDING"}, Compensation{What: "release", State: "PENDING"})
	if diff := gocmp.Diff(answer, c.order(t, id)); diff != "" {
		t.Errorf("GET gives another order (-answer +GET):\n%s", diff)
	}
	if diff := gocmp.Diff([]string{
		fmt.Sprintf(`order.cancel.requested %s {"orderId":"%[1]s","reason":"mistake","code":"cancelled-by-user","parameters":null}`, id),
		fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"mistake","code":"cancelled-by-user","parameters":null}`, id),
	}, published(t, sagatest.Drain(t, c.db))); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}

	again := c.cancel(id, "u-1", "another reason")
	if diff := gocmp.Diff(answer, parse[Order](t, again)); diff != "" || again.Code != http.StatusAccepted {
		t.Errorf("again: %d (-want +got):\n%s", again.Code, diff)
	}
	out := sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id), moneyBack(t, id), stockBack(t, id))
	if len(out) != 0 {
		t.Errorf("told again: %v", published(t, out))
	}
	wantOrder(t, c.order(t, id), want+` | CANCELLED payment.completed too late, the order is CANCELLED: payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200`+
		` | CANCELLED payment.refunded payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200 | CANCELLED inventory.released `,
		Compensation{What: "refund", State: "DONE"}, Compensation{What: "release", State: "DONE"})
	if n := testutil.CollectAndCount(c.metrics.contradictions); n != 0 {
		t.Errorf("%d contradictions counted", n)
	}
}

// A CONFIRMED order is CANCELLING until it is paid back and released, whichever is told first; that it cannot be paid
// back yet is shown and stops nothing.
func TestCancelConfirmed(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id))

	answer := c.cancelled(t, id)
	want := `CANCELLING "mistake"` + saysCreated + saysConfirmed + ` | CANCELLING order.cancel.requested mistake`
	wantOrder(t, answer, want, Compensation{What: "refund", State: "PENDING"}, Compensation{What: "release", State: "PENDING"})
	asked := fmt.Sprintf(`order.cancel.requested %s {"orderId":"%[1]s","reason":"mistake","code":"cancelled-by-user","parameters":null}`, id)
	if diff := gocmp.Diff([]string{asked}, published(t, sagatest.Drain(t, c.db))); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if again := c.cancelled(t, id); gocmp.Diff(answer, again) != "" || len(sagatest.Drain(t, c.db)) != 0 {
		t.Errorf("again: %+v", again)
	}
	if got := parse[pageBody](t, c.get("/orders?status=CANCELLING")).Orders; len(got) != 1 {
		t.Errorf("%d orders are listed as CANCELLING", len(got))
	}
	collector := newCancelling(c.db)
	gauges := func() (n float64) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(collector)
		families, err := registry.Gather()
		if err != nil || len(families) != 2 {
			t.Fatalf("%v, %v", families, err)
		}
		if n, age := families[0].GetMetric()[0].GetGauge().GetValue(), families[1].GetMetric()[0].GetGauge().GetValue(); (n > 0) != (age > 0) {
			t.Errorf("%v orders are CANCELLING, the oldest for %v s", n, age)
		}
		return families[0].GetMetric()[0].GetGauge().GetValue()
	}
	if n := gauges(); n != 1 {
		t.Errorf("%v orders are CANCELLING, by the metrics", n)
	}

	out := sagatest.Deliver(t, c.db, choreography(c.metrics), noMoneyBack(t, id), stockBack(t, id), noMoneyBack(t, id))
	want += ` | CANCELLING payment.refund.failed account merchant is frozen | CANCELLING inventory.released `
	wantOrder(t, c.order(t, id), want, Compensation{"refund", "FAILED", "account merchant is frozen"}, Compensation{What: "release", State: "DONE"})
	if len(out) != 0 {
		t.Errorf("told too early: %v", published(t, out))
	}
	if n := testutil.ToFloat64(c.metrics.compensations.WithLabelValues("refund")); n != 1 {
		t.Errorf("%v failed refunds counted, want 1", n)
	}

	out = sagatest.Deliver(t, c.db, choreography(c.metrics), moneyBack(t, id), stockBack(t, id), moneyBack(t, id))
	wantOrder(t, c.order(t, id), strings.Replace(want, "CANCELLING", "CANCELLED", 1)+
		` | CANCELLED payment.refunded payment ffffffff-ffff-ffff-ffff-ffffffffffff of 4200`,
		Compensation{What: "refund", State: "DONE"}, Compensation{What: "release", State: "DONE"})
	if diff := gocmp.Diff([]string{fmt.Sprintf(`order.cancelled %s {"orderId":"%[1]s","reason":"mistake","code":"cancelled-by-user","parameters":null}`, id)}, published(t, out)); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	if n := gauges(); n != 0 {
		t.Errorf("%v orders are CANCELLING, by the metrics, and in fact none", n)
	}
	if n := testutil.CollectAndCount(c.metrics.duration); n != 1 {
		t.Errorf("durations of %d statuses are observed; how long an order rested CONFIRMED is none", n)
	}
}

func TestCancelIsRefused(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Drain(t, c.db)
	for name, r := range map[string]struct {
		w      *httptest.ResponseRecorder
		status int
		typ    string
	}{
		"another user":  {c.cancel(id, "u-2", "mistake"), http.StatusForbidden, "not-your-order"},
		"unknown order": {c.cancel(uuid.Must(uuid.NewV7()), "u-1", "mistake"), http.StatusNotFound, "not-found"},
		"no reason":     {c.cancel(id, "u-1", ""), http.StatusUnprocessableEntity, "invalid-request"},
		"no user":       {c.cancel(id, "", "mistake"), http.StatusUnprocessableEntity, "invalid-request"},
		"a line feed":   {c.cancel(id, "u-1", "a\nb"), http.StatusUnprocessableEntity, "invalid-request"},
		"a long reason": {c.cancel(id, "u-1", strings.Repeat("x", 257)), http.StatusUnprocessableEntity, "invalid-request"},
	} {
		if p := parse[huma.ErrorModel](t, r.w); r.w.Code != r.status || p.Type != "urn:problem-type:"+r.typ || p.Detail == "" {
			t.Errorf("%s: %d %s, want the problem %d %s", name, r.w.Code, r.w.Body, r.status, r.typ)
		}
	}
	if o := c.order(t, id); o.Status != Pending || len(sagatest.Drain(t, c.db)) != 0 {
		t.Errorf("the order is %s", o.Status)
	}
}

// Two instances are asked to cancel the same orders, twice each, while a third hears what became of their payments:
// each order is asked to be undone once, and told as confirmed only if it was.
func TestCancelsRace(t *testing.T) {
	t.Parallel()
	c := setup(t)
	instances := []client{c, serve(t, c.db)}
	const orders = 60
	ids := make([]uuid.UUID, orders)
	records := make([]broker.Record, orders)
	for i := range ids {
		ids[i] = c.placed(t, draft("u-1")).ID
		records[i] = []broker.Record{completed(t, ids[i]), failed(t, ids[i]), outOfStock(t, ids[i])}[i%3]
	}
	sagatest.Drain(t, c.db)

	heard := make(chan error, 1)
	go func() {
		for some := range slices.Chunk(records, 7) {
			if err := saga.Deliver(t.Context(), choreography(c.metrics), saga.Config{DB: c.db}, some...); err != nil {
				heard <- err
				return
			}
		}
		heard <- nil
	}()
	for _, w := range together(4*orders, func(i int) *httptest.ResponseRecorder {
		return instances[i%2].cancel(ids[i/4], "u-1", "mistake")
	}) {
		if w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if err := <-heard; err != nil {
		t.Fatal(err)
	}

	events := map[string][]string{}
	for _, r := range sagatest.Drain(t, c.db) {
		events[string(r.Key)] = append(events[string(r.Key)], r.Topic)
	}
	ends := map[string]int{}
	for _, id := range ids {
		o, said := c.order(t, id), events[id.String()]
		slices.SortFunc(said, cmp.Compare)
		want := []string{"order.cancel.requested", "order.cancelled"} // asked first
		switch asked := o.asked(); {
		case o.Status == Cancelling:
			want[1] = "order.confirmed"
		case o.Status == Cancelled && !asked: // failed first
			want = want[1:]
		case o.Status != Cancelled:
			t.Errorf("order %s is %s", id, o.Status)
		}
		if !slices.Equal(want, said) {
			t.Errorf("order %s, %s, has told %v", id, outline(o), said)
		}
		ends[fmt.Sprintf("%s, asked %t", o.Status, o.asked())]++
	}
	t.Logf("ends: %v", ends)
}

// While a cancellation waits for the order's lock the payment completes: it finds the order CONFIRMED, and undoes it.
func TestCancelFindsTheOrderAsItIs(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	tx, err := c.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // committed below
	outs, err := react(c.metrics, nil, paid)(t.Context(), tx, []saga.Msg[event.PaymentCompletedV1]{{
		Meta: saga.Meta{ID: uuid.Must(uuid.NewV7()), Key: id.String(), Topic: event.PaymentCompleted.Name()},
		Data: event.PaymentCompletedV1{OrderID: id},
	}})
	if err != nil || len(outs) != 1 {
		t.Fatal(outs, err)
	}
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() { answered <- c.cancel(id, "u-1", "mistake") }()
	pgtest.AwaitLock(t, c.db)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o := parse[Order](t, <-answered); o.Status != Cancelling {
		t.Errorf("the order is %s", outline(o))
	}
}
