package inventory

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// Choreography is inventory's part: what it reacts to, with what, and what it may say then.
//
// Release has a consumer group of its own. It need not queue behind new orders; and it locks products in a transaction of
// its own, where the order of locks holds: two handlers in one transaction would each lock in order, but not together.
func Choreography() saga.Service {
	return saga.Service{
		Name: "inventory",
		Routes: []saga.Route{
			saga.OnBatch(event.OrderCreated, reserve, event.InventoryReserved, event.InventoryReservationFailed),
			saga.OnBatch(event.PaymentFailed, release, event.InventoryReleased).Named("release"),
		},
	}
}

// reserve takes the items of each order, all or none. A repeated order gets its stored outcome again.
func reserve(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.OrderCreatedV1]) ([]saga.Out, error) {
	orders := make([]uuid.UUID, 0, len(msgs))
	var products []string
	for _, m := range msgs {
		orders = append(orders, m.Data.OrderID)
		for _, item := range m.Data.Items {
			if productID.MatchString(item.ProductID) { // of any other text there is no product
				products = append(products, item.ProductID)
			}
		}
	}
	b, err := lockForReserve(ctx, tx, orders, products)
	if err != nil {
		return nil, err
	}
	outs := make([]saga.Out, 0, len(msgs))
	for _, m := range msgs {
		r := b.reserve(m.Data.OrderID, linesOf(m.Data.Items))
		outs = append(outs, outcome(m, r)...)
	}
	return outs, save(ctx, tx, b)
}

// outcome tells what became of an order's attempt to reserve, which stays a fact when the items are released later.
func outcome(m saga.Msg[event.OrderCreatedV1], r Reservation) []saga.Out {
	if r.Reason != "" {
		return saga.Emit(m, event.InventoryReservationFailed, event.InventoryReservationFailedV1{OrderID: r.OrderID, Error: r.Reason})
	}
	return saga.Emit(m, event.InventoryReserved, event.InventoryReservedV1{
		OrderID: m.Data.OrderID, UserID: m.Data.UserID, Amount: m.Data.Amount, Currency: m.Data.Currency,
	})
}

// release gives back what each order holds. Its event says that nothing is reserved for the order from now on, which is
// true of one that was refused or already released too: whoever waits for it never waits in vain.
func release(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.PaymentFailedV1]) ([]saga.Out, error) {
	orders := make([]uuid.UUID, 0, len(msgs))
	for _, m := range msgs {
		orders = append(orders, m.Data.OrderID)
	}
	b, err := lockForRelease(ctx, tx, orders)
	if err != nil {
		return nil, err
	}
	outs := make([]saga.Out, 0, len(msgs))
	for _, m := range msgs {
		b.release(m.Data.OrderID)
		outs = append(outs, saga.Emit(m, event.InventoryReleased, event.InventoryReleasedV1{OrderID: m.Data.OrderID})...)
	}
	return outs, save(ctx, tx, b)
}

func linesOf(items []event.Item) []Line {
	lines := make([]Line, len(items))
	for i, item := range items {
		lines[i] = Line(item)
	}
	return lines
}
