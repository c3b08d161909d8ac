package analytics

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
)

// Side is analytics as a read side: what it writes, and from what.
func Side() readside.Side {
	return readside.Side{Name: "analytics", Tables: []string{"orders", "profile_updates"}, Routes: func(to readside.Target) []saga.Route {
		return []saga.Route{
			saga.OnBatch(event.OrderCreated, note(to, func(f *fact, e event.OrderCreatedV1) {
				f.order, f.user, f.amount, f.currency, f.created = e.OrderID, &e.UserID, &e.Amount, &e.Currency, true
			})),
			saga.OnBatch(event.OrderConfirmed, note(to, func(f *fact, e event.OrderConfirmedV1) { f.order, f.confirmed = e.OrderID, true })),
			saga.OnBatch(event.OrderCancelled, note(to, func(f *fact, e event.OrderCancelledV1) { f.order, f.cancelled = e.OrderID, true })),
			saga.OnBatch(event.PaymentCompleted, note(to, func(f *fact, e event.PaymentCompletedV1) { f.order, f.paid = e.OrderID, true })),
			saga.OnBatch(event.PaymentFailed, note(to, func(f *fact, e event.PaymentFailedV1) {
				f.order = e.OrderID
				f.refused("payment", e.Code, e.Parameters, e.Error)
			})),
			saga.OnBatch(event.InventoryReservationFailed, note(to, func(f *fact, e event.InventoryReservationFailedV1) {
				f.order = e.OrderID
				f.refused("inventory", e.Code, e.Parameters, e.Error)
			})),
			saga.OnBatch(event.UserProfileUpdated, updated(to)),
		}
	}}
}

// Choreography is analytics' part: it listens, and says nothing.
func Choreography() saga.Service { return Side().Service() }

// note writes down what messages tell of orders.
func note[T any](to readside.Target, of func(*fact, T)) func(context.Context, pgx.Tx, []saga.Msg[T]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[T]) ([]saga.Out, error) {
		facts := make(map[uuid.UUID]fact, len(msgs))
		for _, m := range msgs {
			f := fact{at: m.Time}
			of(&f, m.Data)
			if f == (fact{at: f.at, order: f.order}) {
				continue // it tells nothing that is counted
			}
			if known, ok := facts[f.order]; !ok || f.at.Before(known.at) { // said twice, it was so from the first time on
				facts[f.order] = f
			}
		}
		return nil, saveFacts(ctx, tx, to, facts)
	}
}

// refused notes a refusal, unless the order was cancelled.
func (f *fact) refused(by string, code event.Code, about event.Parameters, text string) {
	if refusal(code, text) {
		f.refusedBy, f.refusal = by, kindOfEvent(code, about, text)
	}
}

// updated writes down which version each profile has had since when.
func updated(to readside.Target) func(context.Context, pgx.Tx, []saga.Msg[event.UserProfileUpdatedV1]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.UserProfileUpdatedV1]) ([]saga.Out, error) {
		return nil, saveUpdates(ctx, tx, to, msgs)
	}
}
