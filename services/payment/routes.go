package payment

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// Choreography is payment's part: what it reacts to, with what, and what it may say then.
func Choreography(rule Rule) saga.Service {
	return saga.Service{
		Name: "payment",
		Routes: []saga.Route{
			saga.OnBatch(event.InventoryReserved, charge(rule), event.PaymentCompleted, event.PaymentFailed),
		},
	}
}

// charge charges for each order once. An order that was charged for, or declined, before gets its stored outcome again.
func charge(rule Rule) func(context.Context, pgx.Tx, []saga.Msg[event.InventoryReservedV1]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.InventoryReservedV1]) ([]saga.Out, error) {
		attempts := make([]Payment, len(msgs))
		for i, m := range msgs {
			attempts[i] = rule.attempt(clock.NewID(), m.Data)
		}
		stored, err := settle(ctx, tx, attempts)
		if err != nil {
			return nil, err
		}
		outs := make([]saga.Out, 0, len(msgs))
		for _, m := range msgs {
			outs = append(outs, outcome(m, stored[m.Data.OrderID])...)
		}
		return outs, nil
	}
}

func outcome(m saga.Msg[event.InventoryReservedV1], p Payment) []saga.Out {
	if p.Status == Failed {
		return saga.Emit(m, event.PaymentFailed, event.PaymentFailedV1{OrderID: p.OrderID, Error: p.Reason})
	}
	return saga.Emit(m, event.PaymentCompleted, event.PaymentCompletedV1{OrderID: p.OrderID, PaymentID: p.ID, Amount: p.Amount})
}
