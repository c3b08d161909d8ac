package order

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Whatever an order is cancelled for, the order and order.cancelled say so in the same code, with its parameters,
// besides the text. Of a reason that was told without a code there is the text.
func TestReasonsHaveCodes(t *testing.T) {
	t.Parallel()
	c := setup(t)
	var said []broker.Record
	deliver := func(records ...broker.Record) {
		said = append(said, sagatest.Deliver(t, c.db, choreography(c.metrics), records...)...)
	}
	refuse := func(e event.InventoryReservationFailedV1) func(uuid.UUID) {
		return func(id uuid.UUID) {
			e.OrderID = id
			deliver(sagatest.Record(t, saga.New(t.Context(), event.InventoryReservationFailed, id.String(), e)))
		}
	}
	price := event.Parameters{"askedAmount": "1", "askedCurrency": "EUR", "amount": "4200", "currency": "EUR"}
	for name, tc := range map[string]struct {
		cancel func(uuid.UUID)
		want   event.OrderCancelledV1
	}{
		"refused for its price": {
			refuse(event.InventoryReservationFailedV1{Error: "price mismatch", Code: event.CodePriceMismatch, Parameters: price}),
			event.OrderCancelledV1{Reason: "price mismatch", Code: event.CodePriceMismatch, Parameters: price},
		},
		"refused by a service that knows no codes yet": {
			refuse(event.InventoryReservationFailedV1{Error: "out of stock: p-1"}), event.OrderCancelledV1{Reason: "out of stock: p-1"},
		},
		"refused for a reason that is new": {
			refuse(event.InventoryReservationFailedV1{Error: "too heavy", Code: "too-heavy", Parameters: event.Parameters{"kg": "31"}}),
			event.OrderCancelledV1{Reason: "too heavy", Code: "too-heavy", Parameters: event.Parameters{"kg": "31"}},
		},
		"not paid": {func(id uuid.UUID) {
			deliver(sagatest.Record(t, saga.New(t.Context(), event.PaymentFailed, id.String(),
				event.PaymentFailedV1{OrderID: id, Error: "user u-1 is declined", Code: event.CodeDeclined, Parameters: event.Parameters{"userId": "u-1"}})))
		}, event.OrderCancelledV1{Reason: "user u-1 is declined", Code: event.CodeDeclined, Parameters: event.Parameters{"userId": "u-1"}}},
		"by its user": {func(id uuid.UUID) { c.cancelled(t, id) }, event.OrderCancelledV1{Reason: "mistake", Code: event.CodeCancelledByUser}},
		"too late": {func(id uuid.UUID) {
			if n, err := c.commands.expire(t.Context(), []uuid.UUID{id}); n != 1 || err != nil {
				t.Errorf("%d have expired, %v", n, err)
			}
		}, event.OrderCancelledV1{Reason: "expired", Code: event.CodeExpired}},
		"by comparison": {func(id uuid.UUID) { c.reconcile(id, Pending, held{}) }, event.OrderCancelledV1{Reason: "looked at", Code: event.CodeReconciled, Parameters: event.Parameters{"by": "the test"}}},
		"confirmed, by its user": {func(id uuid.UUID) {
			deliver(completed(t, id))
			c.cancelled(t, id)
			deliver(moneyBack(t, id), stockBack(t, id))
		}, event.OrderCancelledV1{Reason: "mistake", Code: event.CodeCancelledByUser}},
	} {
		o := c.placed(t, draft("u-1"))
		sagatest.Drain(t, c.db)
		tc.cancel(o.ID)
		is := c.order(t, o.ID)
		shown := event.OrderCancelledV1{OrderID: o.ID, Reason: is.Reason, Code: is.ReasonCode, Parameters: is.ReasonParameters}
		tc.want.OrderID = o.ID
		if diff := cmp.Diff(tc.want, shown); diff != "" || is.Status != Cancelled {
			t.Errorf("%s: the order, %s (-want +got):\n%s", name, is.Status, diff)
		}
		var told []event.OrderCancelledV1
		var asked []event.Code
		for _, r := range append(said, sagatest.Drain(t, c.db)...) {
			switch r.Topic {
			case event.OrderCancelled.Name():
				told = append(told, sagatest.Decode(t, event.OrderCancelled, r))
			case event.OrderCancelRequested.Name():
				asked = append(asked, sagatest.Decode(t, event.OrderCancelRequested, r).Code)
			}
		}
		said = nil
		if diff := cmp.Diff([]event.OrderCancelledV1{tc.want}, told); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", name, diff)
		}
		if len(asked) > 1 || len(asked) == 1 && asked[0] != tc.want.Code {
			t.Errorf("%s: asked for with %q", name, asked)
		}
	}
}

// An order of free products is an order like any other.
func TestFreeOrder(t *testing.T) {
	t.Parallel()
	c := setup(t)
	free := strings.Replace(draft("u-1"), `"amount":4200`, `"amount":0`, 1)
	id := c.placed(t, free).ID
	created := sagatest.Drain(t, c.db)
	if e := sagatest.Decode(t, event.OrderCreated, created[0]); e.Amount != 0 || e.OrderID != id {
		t.Errorf("told %+v", e)
	}
	sagatest.Deliver(t, c.db, choreography(c.metrics), sagatest.Record(t, saga.New(t.Context(), event.PaymentCompleted, id.String(),
		event.PaymentCompletedV1{OrderID: id, PaymentID: uuid.Max})))
	if o := c.order(t, id); o.Status != Confirmed || o.Amount != 0 {
		t.Errorf("it is %s of %d", o.Status, o.Amount)
	}
}
