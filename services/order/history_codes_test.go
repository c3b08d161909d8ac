package order

import (
	"encoding/json"
	"io"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// codes are what the lines of an order's history say for programs, as a client sees them: "event code {parameters}".
func (c client) codes(t *testing.T, id uuid.UUID) (all []string) {
	t.Helper()
	var o struct {
		History []struct {
			Event, Code string
			Parameters  json.RawMessage
		}
	}
	w := c.get("/orders/" + id.String())
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	for _, e := range o.History {
		all = append(all, e.Event+" "+e.Code+" "+string(e.Parameters))
	}
	return all
}

// Each line of a history that tells why has the code of it, with its parameters: in the order, and in its stream. The
// texts stay what they were.
func TestHistoryHasCodes(t *testing.T) {
	t.Parallel()
	c := setup(t)
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	deliver := func(outs ...saga.Out) {
		t.Helper()
		for _, out := range outs {
			sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), sagatest.Record(t, out))
		}
	}
	refuse := func(id uuid.UUID, text string, code event.Code, p event.Parameters) saga.Out {
		return saga.New(t.Context(), event.InventoryReservationFailed, id.String(),
			event.InventoryReservationFailedV1{OrderID: id, Error: text, Code: code, Parameters: p})
	}
	unpaid := func(id uuid.UUID) saga.Out {
		return saga.New(t.Context(), event.PaymentFailed, id.String(),
			event.PaymentFailedV1{OrderID: id, Error: "u-1 is declined", Code: event.CodeDeclined, Parameters: event.Parameters{"userId": "u-1"}})
	}
	owed := func(id uuid.UUID) saga.Out {
		return saga.New(t.Context(), event.PaymentRefundFailed, id.String(),
			event.PaymentRefundFailedV1{OrderID: id, Error: "frozen", Code: event.CodeAccountFrozen, Parameters: event.Parameters{"account": "m"}})
	}
	for name, tc := range map[string]struct {
		happens func(uuid.UUID)
		want    []string
	}{
		"refused, and late": {func(id uuid.UUID) {
			deliver(refuse(id, "out of stock: p-1", event.CodeOutOfStock, event.Parameters{"productId": "p-1"}), unpaid(id))
		}, []string{"order.created  ", `inventory.reservation.failed out-of-stock {"productId":"p-1"}`, `payment.failed declined {"userId":"u-1"}`}},
		"refused by a service that knows no codes yet": {func(id uuid.UUID) { deliver(refuse(id, "out of stock: p-1", "", nil)) },
			[]string{"order.created  ", "inventory.reservation.failed  "}},
		"cancelled by its user, and owed": {func(id uuid.UUID) {
			sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), completed(t, id))
			c.cancelled(t, id)
			deliver(owed(id))
			sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), moneyBack(t, id), stockBack(t, id))
		}, []string{"order.created  ", "payment.completed  ", "order.cancel.requested cancelled-by-user ", `payment.refund.failed account-frozen {"account":"m"}`,
			"payment.refunded  ", "inventory.released  "}},
		"by comparison": {func(id uuid.UUID) { c.reconcile(id, Pending, held{}) },
			[]string{"order.created  ", `order.cancel.requested reconciled {"by":"the test"}`, `order.reconciled reconciled {"by":"the test"}`}},
	} {
		o := c.placed(t, draft("u-1"))
		tc.happens(o.ID)
		if diff := cmp.Diff(tc.want, c.codes(t, o.ID)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		got, err := io.ReadAll(follow(t, s.URL+"/orders/"+o.ID.String()+"/events", "").Body)
		if want := "retry: 1000\n\n" + lines(c.order(t, o.ID), 0); err != nil || string(got) != want {
			t.Errorf("%s: streams %s, %v, want %s", name, got, err, want)
		}
	}
}

// A process of an earlier version writes a history anew without codes, as those that it wrote before codes were there:
// the line that tells why the order was cancelled has the order's own all the same, for all who read it.
func TestHistoryThatAnEarlierVersionWrote(t *testing.T) {
	t.Parallel()
	c := setup(t)
	o := c.placed(t, draft("u-1"))
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, o.ID))
	c.cancelled(t, o.ID)
	if _, err := c.db.Exec(t.Context(), `UPDATE orders SET history = (SELECT jsonb_agg(line - 'code' - 'parameters' ORDER BY n)
		FROM jsonb_array_elements(history) WITH ORDINALITY AS t (line, n)) WHERE id = $1`, o.ID); err != nil {
		t.Fatal(err)
	}
	want := []string{"order.created  ", "payment.completed  ", "order.cancel.requested cancelled-by-user "}
	if diff := cmp.Diff(want, c.codes(t, o.ID)); diff != "" {
		t.Errorf("the order (-want +got):\n%s", diff)
	}
	w, err := c.waits.join(o.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer w.leave()
	w.notify(Progress{Status: Pending})
	if err := c.waits.look(t.Context(), c.db); err != nil {
		t.Fatal(err)
	}
	if lines := w.state().History; len(lines) != 3 || lines[2].Code != event.CodeCancelledByUser {
		t.Errorf("who waits sees %+v", lines)
	}
	sagatest.Deliver(t, c.db, choreography(c.metrics), moneyBack(t, o.ID))
	var stored string
	if err := c.db.QueryRow(t.Context(), `SELECT history #>> '{2,code}' FROM orders WHERE id = $1`, o.ID).Scan(&stored); err != nil || stored != "cancelled-by-user" {
		t.Errorf("stored anew as %q, %v", stored, err)
	}
}
