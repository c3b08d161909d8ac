package order

import (
	"context"
	"fmt"
	"maps"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// Choreography is order's part of the saga: it begins with an order, or with the wish to cancel one, and ends with what
// the others made of it.
func Choreography() saga.Service { return choreography(newMetrics()) }

func choreography(m *metrics) saga.Service { return waking(m, nil) }

// waking is the choreography that tells waiters what it has committed.
func waking(m *metrics, w *waiters) saga.Service {
	return saga.Service{
		Name: "order",
		Routes: []saga.Route{
			saga.OnBatch(event.PaymentCompleted, react(m, w, paid), event.OrderConfirmed),
			saga.OnBatch(event.PaymentFailed, react(m, w, notPaid), event.OrderCancelled),
			saga.OnBatch(event.InventoryReservationFailed, react(m, w, notReserved), event.OrderCancelled),
			saga.OnBatch(event.PaymentRefunded, react(m, w, refunded), event.OrderCancelled),
			saga.OnBatch(event.PaymentRefundFailed, react(m, w, notRefunded)), // a line of history
			saga.OnBatch(event.InventoryReleased, react(m, w, released), event.OrderCancelled),
		},
		// What a request begins, to place, to cancel or to reconcile an order, or the deadline of one.
		Publishes: []saga.AnyTopic{event.OrderCreated, event.OrderCancelRequested, event.OrderCancelled, event.OrderConfirmed},
	}
}

func paid(e event.PaymentCompletedV1) outcome {
	return outcome{order: e.OrderID, status: Confirmed, detail: fmt.Sprintf("payment %s of %d", e.PaymentID, e.Amount)}
}

func notPaid(e event.PaymentFailedV1) outcome {
	return outcome{order: e.OrderID, status: Cancelled, detail: e.Error, code: e.Code, parameters: e.Parameters}
}

func notReserved(e event.InventoryReservationFailedV1) outcome {
	return outcome{order: e.OrderID, status: Cancelled, detail: e.Error, code: e.Code, parameters: e.Parameters}
}

func refunded(e event.PaymentRefundedV1) outcome {
	return outcome{order: e.OrderID, undoes: true, detail: fmt.Sprintf("payment %s of %d", e.PaymentID, e.Amount)}
}

func notRefunded(e event.PaymentRefundFailedV1) outcome {
	return outcome{order: e.OrderID, undoes: true, detail: e.Error, code: e.Code, parameters: e.Parameters}
}

func released(e event.InventoryReleasedV1) outcome {
	return outcome{order: e.OrderID}
}

// react makes the handler of a topic: it applies each message's outcome to its order and emits for the orders that
// settled. An order and its order.created come from one transaction, so a message about an order that is not here is
// nobody's.
func react[T any](metrics *metrics, waits *waiters, read func(T) outcome) func(context.Context, pgx.Tx, []saga.Msg[T]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[T]) ([]saga.Out, error) {
		outcomes := make([]outcome, len(msgs))
		ids := make([]uuid.UUID, len(msgs))
		for i, m := range msgs {
			outcomes[i] = read(m.Data)
			outcomes[i].event = m.Topic
			ids[i] = outcomes[i].order
		}
		orders, err := lock(ctx, tx, ids)
		if err != nil {
			return nil, err
		}
		now := clock.Now()
		var outs []saga.Out
		for i, n := range outcomes {
			o := orders[n.order]
			if o == nil {
				return nil, saga.Blame(msgs[i].Meta, saga.Permanent(fmt.Errorf("order %s is not known here", n.order)))
			}
			var did effect
			was := o.Status
			o.Progress, did = o.apply(n, now)
			o.changed = o.changed || did != ignored
			switch is := o.Status; did {
			case settled:
				outs = append(outs, announce(msgs[i], o)...)
				saga.AfterCommit(ctx, func() { metrics.moved(was, is, now.Sub(o.createdAt)) })
			case contradicted:
				saga.AfterCommit(ctx, func() { metrics.contradicted(n.event, is) })
			}
			if did != ignored && n.event == event.PaymentRefundFailed.Name() {
				saga.AfterCommit(ctx, func() { metrics.compensationFailed(refund) })
			}
		}
		saga.AfterCommit(ctx, func() { waits.notifyChanged(maps.Values(orders)) })
		return outs, save(ctx, tx, maps.Values(orders))
	}
}

// announce tells that an order has settled.
func announce[T any](cause saga.Msg[T], o *lockedOrder) []saga.Out {
	if o.Status == Confirmed {
		return saga.Emit(cause, event.OrderConfirmed, event.OrderConfirmedV1{OrderID: o.id})
	}
	return saga.Emit(cause, event.OrderCancelled, o.cancelled(o.id))
}
