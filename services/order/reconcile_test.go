package order

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// reconcile tells the order what the others hold.
func (c client) reconcile(id uuid.UUID, seen Status, h held) *httptest.ResponseRecorder {
	body := fmt.Sprintf(`{"seen":%q,"reserved":%t,"paid":%t,"reason":"looked at","by":"the test"}`, seen, h.reserved, h.paid)
	r := httptest.NewRequest(http.MethodPost, "/orders/"+id.String()+"/reconcile", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	return c.do(r)
}

// brought places an order and makes its row say this status, behind the service's back, as of an hour ago.
func (c client) brought(t *testing.T, status Status) Order {
	t.Helper()
	o := c.placed(t, draft("u-1"))
	sagatest.Drain(t, c.db)
	if _, err := c.db.Exec(t.Context(), `UPDATE orders SET status = $2, settled_at = CASE WHEN $2 IN ('CONFIRMED', 'CANCELLED') THEN now() END,
		history = jsonb_set(history, '{0,at}', '"2026-01-31T12:00:00Z"') WHERE id = $1`, o.ID, status); err != nil {
		t.Fatal(err)
	}
	if status == Cancelling {
		if _, err := c.db.Exec(t.Context(), `INSERT INTO cancelling (order_id) VALUES ($1)`, o.ID); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// hearsPaid has the order hear from payment that it is paid, behind the service's back: it stays what it is.
func (c client) hearsPaid(t *testing.T, id uuid.UUID) {
	t.Helper()
	if _, err := c.db.Exec(t.Context(), `UPDATE orders SET history = history || '{"at":"2026-01-31T12:00:00Z","status":"PENDING","event":"payment.completed"}' WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
}

// topics are those of the events that left, in order.
func (c client) topics(t *testing.T) (topics []string) {
	t.Helper()
	for _, r := range sagatest.Drain(t, c.db) {
		topics = append(topics, r.Topic)
	}
	return topics
}

// What the history says, and why, of an order that is told what the others hold. What was heard before does not matter.
func TestReconcileProgress(t *testing.T) {
	t.Parallel()
	one := at(1)
	misled := []Entry{line(at(0), Confirmed, "payment.refunded", ""), line(at(0), Confirmed, "inventory.released", "")}
	asked := func(is Status) Entry {
		return coded(line(one, is, "order.cancel.requested", "looked at"), event.CodeReconciled, event.Parameters{"by": "the test"})
	}
	found := func(is Status) Entry {
		return coded(line(one, is, "order.reconciled", "looked at (the test)"), event.CodeReconciled, event.Parameters{"by": "the test"})
	}
	for name, tc := range map[string]struct {
		from Progress
		held held
		want Progress
	}{
		"confirmed": {Progress{Status: Pending}, held{true, true}, Progress{Status: Confirmed, SettledAt: &one, History: []Entry{found(Confirmed)}}},
		"given up":  {Progress{Status: Pending}, held{}, Progress{Status: Cancelled, Reason: "looked at", ReasonCode: event.CodeReconciled, ReasonParameters: event.Parameters{"by": "the test"}, SettledAt: &one, History: []Entry{asked(Cancelled), found(Cancelled)}}},
		"not reserved, misled by what was heard": {
			Progress{Status: Confirmed, SettledAt: &one, History: misled}, held{paid: true},
			Progress{Status: Cancelling, Reason: "looked at", ReasonCode: event.CodeReconciled, ReasonParameters: event.Parameters{"by": "the test"}, History: append(slices.Clip(misled), asked(Cancelling), found(Cancelling))},
		},
		"not paid": {
			Progress{Status: Confirmed, SettledAt: &one}, held{reserved: true},
			Progress{Status: Cancelled, Reason: "looked at", ReasonCode: event.CodeReconciled, ReasonParameters: event.Parameters{"by": "the test"}, SettledAt: &one, History: []Entry{asked(Cancelled), found(Cancelled)}},
		},
		"undone": {
			Progress{Status: Cancelling, Reason: "mistake"}, held{},
			Progress{Status: Cancelled, Reason: "mistake", SettledAt: &one, History: []Entry{found(Cancelled)}},
		},
	} {
		got, changed := tc.from.reconcile(comparison{held: tc.held, reason: "looked at", by: "the test"}, one)
		if diff := cmp.Diff(tc.want, got); diff != "" || !changed {
			t.Errorf("%s: changed %t (-want +got):\n%s", name, changed, diff)
		}
		if again, changed := got.reconcile(comparison{held: tc.held, reason: "looked at", by: "the test"}, at(2)); changed || cmp.Diff(got, again) != "" {
			t.Errorf("%s, again: changed %t, %+v", name, changed, again)
		}
	}
}

// An order that was found to lack its items is undone as one that its user commands: what is told of that is no
// contradiction.
func TestReconciledOrderIsUndone(t *testing.T) {
	t.Parallel()
	c := setup(t)
	o := c.brought(t, Confirmed)
	for range 2 { // the answer to the first was lost
		if w := c.reconcile(o.ID, Confirmed, held{paid: true}); w.Code != http.StatusOK || parse[facts.Fact](t, w).Status != string(Cancelling) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if diff := cmp.Diff([]string{"order.cancel.requested"}, c.topics(t)); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
	want := `CANCELLING "looked at"` + saysCreated + ` | CANCELLING order.cancel.requested looked at | CANCELLING order.reconciled looked at (the test)`
	is := c.order(t, o.ID)
	is.History[0].Status = Pending // brought behind the service's back
	wantOrder(t, is, want, Compensation{What: "refund", State: "PENDING"}, Compensation{What: "release", State: "PENDING"})
	sagatest.Deliver(t, c.db, choreography(c.metrics), noMoneyBack(t, o.ID), completed(t, o.ID), moneyBack(t, o.ID), stockBack(t, o.ID))
	is = c.order(t, o.ID)
	if diff := cmp.Diff([]Compensation{{What: "refund", State: "DONE"}, {What: "release", State: "DONE"}}, is.Compensations); diff != "" || is.Status != Cancelled {
		t.Errorf("it is %s (-want +got):\n%s", is.Status, diff)
	}
	if n := testutil.CollectAndCount(c.metrics.contradictions); n != 0 {
		t.Errorf("%d contradictions counted", n)
	}
}

// Payment pays back for an order that was cancelled though nobody had asked for it: that is what should be.
func TestPaidBackForACancelledOrder(t *testing.T) {
	t.Parallel()
	c := setup(t)
	cancelled, confirmed := c.brought(t, Cancelled), c.brought(t, Confirmed)
	sagatest.Deliver(t, c.db, choreography(c.metrics), moneyBack(t, cancelled.ID), moneyBack(t, confirmed.ID))
	for status, want := range map[Status]float64{Cancelled: 0, Confirmed: 1} {
		if n := testutil.ToFloat64(c.metrics.contradictions.WithLabelValues("payment.refunded", string(status))); n != want {
			t.Errorf("%v contradictions of %s counted, want %v", n, status, want)
		}
	}
}

// Who has looked, and why, is text that the history can hold.
func TestReconcileRefusesControlCharacters(t *testing.T) {
	t.Parallel()
	c := setup(t)
	o := c.brought(t, Pending)
	for _, body := range []string{
		`{"seen":"PENDING","reserved":true,"paid":true,"reason":"looked at","by":"a\u0000b"}`,
		`{"seen":"PENDING","reserved":true,"paid":true,"reason":"a\u0000b","by":"the test"}`,
	} {
		r := httptest.NewRequest(http.MethodPost, "/orders/"+o.ID.String()+"/reconcile", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if w := c.do(r); w.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

// What an order concludes from what the others hold, and whom it tells. If it has concluded the same before, whatever
// was seen then, it tells nobody again.
func TestReconcile(t *testing.T) {
	t.Parallel()
	c := setup(t)
	both, neither, reserved, paid := held{true, true}, held{}, held{reserved: true}, held{paid: true}
	undo := []string{"order.cancel.requested", "order.cancelled"}
	type row struct {
		was  Status
		held held
		is   Status
		told []string
	}
	rows := []row{
		{Pending, both, Confirmed, []string{"order.confirmed"}},
		{Pending, reserved, Cancelled, undo},
		{Pending, paid, Cancelled, undo},
		{Pending, neither, Cancelled, undo},
		{Confirmed, both, Confirmed, nil},
		{Confirmed, paid, Cancelling, undo[:1]},
		{Confirmed, reserved, Cancelled, undo},
		{Confirmed, neither, Cancelled, undo},
		{Cancelling, both, Cancelling, undo[:1]},
		{Cancelling, reserved, Cancelling, undo[:1]},
		{Cancelling, paid, Cancelling, undo[:1]},
		{Cancelling, neither, Cancelled, undo[1:]},
		{Cancelled, both, Cancelled, undo},
		{Cancelled, reserved, Cancelled, undo},
		{Cancelled, paid, Cancelled, undo},
		{Cancelled, neither, Cancelled, nil},
	}
	wanted := map[string]Status{}
	for _, tc := range rows {
		wanted[fmt.Sprint(tc.was, tc.held)] = tc.is
	}
	for _, tc := range rows {
		t.Run(fmt.Sprintf("%s %+v", tc.was, tc.held), func(t *testing.T) {
			o := c.brought(t, tc.was)
			if tc.was == Pending {
				c.hearsPaid(t, o.ID)
			}
			for _, other := range []Status{Pending, Confirmed, Cancelling, Cancelled} {
				if other == tc.was {
					continue
				}
				w := c.reconcile(o.ID, other, tc.held)
				if want := map[bool]int{true: http.StatusOK, false: http.StatusConflict}[tc.told == nil || wanted[fmt.Sprint(other, tc.held)] == tc.was]; w.Code != want {
					t.Errorf("seen as %s: %d %s, want %d", other, w.Code, w.Body, want)
				}
			}
			if told := c.topics(t); len(told) > 0 {
				t.Errorf("what was seen was not so, and it told %v", told)
			}
			w := c.reconcile(o.ID, tc.was, tc.held)
			if w.Code != http.StatusOK {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			f := parse[facts.Fact](t, w)
			if f.Status != string(tc.is) || f.Member != (tc.is == Confirmed) || f.ID != o.ID {
				t.Errorf("it is %+v, want %s", f, tc.is)
			}
			if diff := cmp.Diff(tc.told, c.topics(t)); diff != "" {
				t.Errorf("published (-want +got):\n%s", diff)
			}
			now := c.order(t, o.ID)
			last := now.History[len(now.History)-1]
			if moved := tc.is != tc.was; now.Status != tc.is || moved != (last.Event == eventReconciled && last.Detail == "looked at (the test)" && last.Status == tc.is) {
				t.Errorf("stored: %s, %+v", now.Status, now.History)
			}
			got, err := source.Get(t.Context(), c.db, o.ID)
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			if diff := cmp.Diff(f, got[0]); diff != "" {
				t.Errorf("the answer is not what is held (-answer +held):\n%s", diff)
			}
			if n := c.count(t, `SELECT count(*) FROM cancelling WHERE order_id = $1`, o.ID); (n == 1) != (tc.is == Cancelling) {
				t.Errorf("%d rows in cancelling", n)
			}
		})
	}
	if w := c.reconcile(uuid.New(), Pending, both); w.Code != http.StatusNotFound {
		t.Errorf("an order that is not there: %d", w.Code)
	}
}

// Nobody can say that an order is paid but payment: a caller who says so confirms nothing, and payment's event does.
func TestReconcileTakesNobodysWordForMoney(t *testing.T) {
	t.Parallel()
	c := setup(t)
	refuses := func(o Order) {
		t.Helper()
		before := c.order(t, o.ID)
		if w := c.reconcile(o.ID, Pending, held{true, true}); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "unproven") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if diff := cmp.Diff(before, c.order(t, o.ID)); diff != "" {
			t.Errorf("it changed (-before +after):\n%s", diff)
		}
		if told := c.topics(t); len(told) > 0 {
			t.Errorf("it told %v", told)
		}
	}
	o := c.brought(t, Pending)
	refuses(o)
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, o.ID))
	if is := c.order(t, o.ID); is.Status != Confirmed {
		t.Errorf("payment has told, and it is %s", is.Status)
	}

	back := c.brought(t, Pending)
	c.hearsPaid(t, back.ID)
	sagatest.Deliver(t, c.db, choreography(c.metrics), moneyBack(t, back.ID))
	refuses(back)
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, back.ID))
	if is := c.order(t, back.ID); is.Status != Confirmed {
		t.Errorf("paid after it was paid back, it is %s", is.Status)
	}
}

// Its user's wish and what was found out do not both have their way.
func TestReconcileRacesWithCancel(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for range 20 {
		o := c.brought(t, Pending)
		c.hearsPaid(t, o.ID)
		var both sync.WaitGroup
		both.Go(func() { c.reconcile(o.ID, Pending, held{true, true}) })
		both.Go(func() {
			if _, err := c.commands.request(t.Context(), o.ID, "u-1", "changed my mind"); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		is, told := c.order(t, o.ID).Status, c.topics(t)
		first := slices.Equal(told, []string{"order.confirmed", "order.cancel.requested"}) && is == Cancelling
		second := slices.Equal(told, []string{"order.cancel.requested", "order.cancelled"}) && is == Cancelled
		if !first && !second {
			t.Errorf("it is %s, and told %v", is, told)
		}
	}
}

// A digest of orders says how many are CONFIRMED, what they amount to, and how many are on their way.
func TestDigestOfOrders(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const lines = `[["p-1",2],["p-2",1]]`
	var hash, money, items uint64
	for _, status := range []Status{Pending, Confirmed, Confirmed, Cancelling, Cancelled} {
		if o := c.brought(t, status); status == Confirmed {
			hash ^= facts.HashOf(o.ID)
			money ^= facts.ContentHash(o.ID, facts.MoneyText(4200, "EUR", "u-1"))
			items ^= facts.ContentHash(o.ID, lines)
		}
	}
	got, err := source.Digest(t.Context(), c.db, facts.Span{To: uuid.Max}, 1<<40*time.Millisecond)
	want := []facts.Bucket{{Start: 1 << 40, Rows: 5, Count: 2, Hash: facts.Hex(hash), Amount: 8400, Open: 2, Money: facts.Hex(money), Items: facts.Hex(items)}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	list, err := source.List(t.Context(), c.db, facts.Span{To: uuid.Max}, 10)
	if err != nil || len(list) != 5 {
		t.Fatal(list, err)
	}
	user := "u-1"
	for i, status := range []Status{Pending, Confirmed, Confirmed, Cancelling, Cancelled} {
		want := facts.Fact{ID: list[i].ID, Member: status == Confirmed, Status: string(status), Amount: 4200, Currency: "EUR", ChangedAt: at(0), UserID: &user, Items: lines}
		if diff := cmp.Diff(want, list[i]); diff != "" {
			t.Errorf("fact of %s (-want +got):\n%s", status, diff)
		}
	}
}
