package order

import (
	"encoding/json"
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

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/sagatest"
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

// topics are those of the events that left, in order.
func (c client) topics(t *testing.T) (topics []string) {
	t.Helper()
	for _, r := range sagatest.Drain(t, c.db) {
		topics = append(topics, r.Topic)
	}
	return topics
}

// What an order concludes from what the others hold, and whom it tells.
func TestReconcile(t *testing.T) {
	t.Parallel()
	c := setup(t)
	both, neither, reserved, paid := held{true, true}, held{}, held{reserved: true}, held{paid: true}
	undo := []string{"order.cancel.requested", "order.cancelled"}
	for _, tc := range []struct {
		was  Status
		held held
		is   Status
		told []string
	}{
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
	} {
		t.Run(fmt.Sprintf("%s %+v", tc.was, tc.held), func(t *testing.T) {
			o := c.brought(t, tc.was)
			for _, other := range []Status{Pending, Confirmed, Cancelling, Cancelled} {
				if other == tc.was {
					continue
				}
				w := c.reconcile(o.ID, other, tc.held)
				if want := map[bool]int{true: http.StatusOK, false: http.StatusConflict}[tc.told == nil]; w.Code != want {
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
				t.Errorf("told (-want +got):\n%s", diff)
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

// Its user's wish and what was found out do not both have their way.
func TestReconcileRacesWithCancel(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for range 20 {
		o := c.brought(t, Pending)
		var both sync.WaitGroup
		both.Go(func() { c.reconcile(o.ID, Pending, held{true, true}) })
		both.Go(func() {
			if _, err := c.cancels.request(t.Context(), o.ID, "u-1", "changed my mind"); err != nil {
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
	var hash uint64
	for _, status := range []Status{Pending, Confirmed, Confirmed, Cancelling, Cancelled} {
		if o := c.brought(t, status); status == Confirmed {
			hash ^= facts.HashOf(o.ID)
		}
	}
	got, err := source.Digest(t.Context(), c.db, facts.Span{To: uuid.Max}, 1<<40*time.Millisecond)
	want := []facts.Bucket{{Start: 1 << 40, Rows: 5, Count: 2, Hash: facts.Hex(hash), Amount: 8400, Open: 2}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	list, err := source.List(t.Context(), c.db, facts.Span{To: uuid.Max}, 10)
	text, _ := json.Marshal(list[0])
	if err != nil || len(list) != 5 || !list[0].ChangedAt.Equal(at(0)) {
		t.Errorf("%d facts, %v, the first %s", len(list), err, text)
	}
}
