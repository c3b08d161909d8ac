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
// Release has a consumer group of its own, and need not queue behind new orders. Its four topics share that group, for
// each group costs a little when nothing happens. So one transaction may run two of its routes, each of which locks in
// the one order, but not both together, and two instances, or one and its reserve, can wait for each other. That takes
// a poll with several topics and the same products on both sides; PostgreSQL then ends one of the two ([pg.Transient]
// knows the deadlock), which does its poll again and finds all as if it had not begun.
func Choreography() saga.Service { return Config{}.choreography() }

// Config is what the service decides by.
type Config struct {
	AnyPrice bool // an order's amount is not held to its products' prices
}

func (c Config) choreography() saga.Service {
	return saga.Service{
		Name: "inventory",
		Routes: []saga.Route{
			saga.OnBatch(event.OrderCreated, c.reserve, event.InventoryReserved, event.InventoryReservationFailed, event.ProductUpdated),
			releasing(event.PaymentFailed, func(e event.PaymentFailedV1) uuid.UUID { return e.OrderID }),
			releasing(event.PaymentRefunded, func(e event.PaymentRefundedV1) uuid.UUID { return e.OrderID }),
			releasing(event.PaymentRefundFailed, func(e event.PaymentRefundFailedV1) uuid.UUID { return e.OrderID }),
			releasing(event.OrderCancelled, func(e event.OrderCancelledV1) uuid.UUID { return e.OrderID }),
		},
		Publishes: []saga.AnyTopic{event.ProductUpdated},
	}
}

// reserve takes the items of each order, all or none, if they cost what the order says. A repeated order gets its
// stored outcome again. Products are locked when their prices are read: no price changes between that and the
// reservation.
func (c Config) reserve(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.OrderCreatedV1]) ([]saga.Out, error) {
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
		asked := &Money{m.Data.Amount, m.Data.Currency}
		if c.AnyPrice {
			asked = nil
		}
		r := b.reserve(m.Data.OrderID, linesOf(m.Data.Items), asked)
		outs = append(outs, outcome(m, r)...)
	}
	updates, err := emitAvailability(ctx, tx, b, msgs[len(msgs)-1])
	if err != nil {
		return nil, err
	}
	return append(outs, updates...), save(ctx, tx, b)
}

// outcome tells what became of an order's attempt to reserve, which stays a fact when the items are released later.
func outcome(m saga.Msg[event.OrderCreatedV1], r Reservation) []saga.Out {
	if r.Reason != "" {
		return saga.Emit(m, event.InventoryReservationFailed, event.InventoryReservationFailedV1{
			OrderID: r.OrderID, Error: r.Reason, Code: r.ReasonCode, Parameters: r.ReasonParameters,
		})
	}
	return saga.Emit(m, event.InventoryReserved, event.InventoryReservedV1{
		OrderID: m.Data.OrderID, UserID: m.Data.UserID, Amount: m.Data.Amount, Currency: m.Data.Currency,
	})
}

// releasing releases an order when it will not be paid, was paid back, or is cancelled; also when it cannot be paid
// back yet, since nobody is served by stock that is held until then.
func releasing[T any](topic saga.Topic[T], order func(T) uuid.UUID) saga.Route {
	return saga.OnBatch(topic, func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[T]) ([]saga.Out, error) {
		return release(ctx, tx, msgs, order)
	}, event.InventoryReleased, event.ProductUpdated).Named("release")
}

// release gives back what each order holds. Its event says that nothing is reserved for the order from now on, which is
// true of one that was refused or already released too: whoever waits for it never waits in vain.
func release[T any](ctx context.Context, tx pgx.Tx, msgs []saga.Msg[T], order func(T) uuid.UUID) ([]saga.Out, error) {
	orders := make([]uuid.UUID, 0, len(msgs))
	for _, m := range msgs {
		orders = append(orders, order(m.Data))
	}
	b, err := lockForRelease(ctx, tx, orders)
	if err != nil {
		return nil, err
	}
	outs := make([]saga.Out, 0, len(msgs))
	for i, m := range msgs {
		b.release(orders[i])
		outs = append(outs, saga.Emit(m, event.InventoryReleased, event.InventoryReleasedV1{OrderID: orders[i]})...)
	}
	updates, err := emitAvailability(ctx, tx, b, msgs[len(msgs)-1])
	if err != nil {
		return nil, err
	}
	return append(outs, updates...), save(ctx, tx, b)
}

func linesOf(items []event.Item) []Line {
	lines := make([]Line, len(items))
	for i, item := range items {
		lines[i] = Line(item)
	}
	return lines
}
