package order

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// commands commands orders because somebody asks for it: their users, or their deadlines.
type commands struct {
	db      *pgxpool.Pool
	relay   *outbox.Relay // nil: events wait in the outbox
	metrics *metrics
	waits   *waiters // are notified of what changes; nil: nobody waits
	now     func() time.Time
}

// request commands an order if it is the user's, and returns it as it is then, whose ever it is. There may be none.
func (c *commands) request(ctx context.Context, id uuid.UUID, user, reason string) (*Order, error) {
	orders, _, err := c.cancel(ctx, []uuid.UUID{id}, reason, event.CodeCancelledByUser, func(o *Order) bool { return o.UserID == user })
	if err != nil || len(orders) == 0 {
		return nil, err
	}
	return orders[0], nil
}

// expired is why an order is cancelled whose deadline is over.
const expired = "expired"

// expire commands those of the orders that are PENDING still, and counts them.
func (c *commands) expire(ctx context.Context, ids []uuid.UUID) (n int, err error) {
	_, n, err = c.cancel(ctx, ids, expired, event.CodeExpired, func(o *Order) bool { return o.Status == Pending })
	c.metrics.expired(n)
	return n, err
}

// cancel commands the orders for which allowed says so.
func (c *commands) cancel(ctx context.Context, ids []uuid.UUID, reason string, code event.Code, allowed func(*Order) bool) (orders []*Order, changed int, err error) {
	return c.change(ctx, ids, func(o *Order, now time.Time) (changed bool, outs []saga.Out) {
		if !allowed(o) {
			return false, nil
		}
		if o.Progress, changed = o.cancel(reason, code, now); changed {
			outs = cancelRequested(ctx, o)
		}
		return changed, outs
	})
}

// change has decide change the progress of each order, and say whether it did and what is to be emitted, in one
// transaction: new states, histories and events. It returns all the orders that exist, as they are then, and how many
// of them it has changed. Whoever comes second, from another instance too, waits for the order's lock and finds what
// the first has done. When it fails, nothing is changed, unless the connection was lost during the commit; then the
// same again finds what was done.
//
// It locks rows in the order of their ids and only those, so two of it never wait for each other. A consumer may hold
// the orders of two topics, in an order of its own; PostgreSQL ends one of the two then, and that one is done again.
func (c *commands) change(ctx context.Context, ids []uuid.UUID, decide func(o *Order, now time.Time) (bool, []saga.Out)) (orders []*Order, changed int, err error) {
	type move struct {
		was, is Status
		took    time.Duration
	}
	var moves []move
	var todo []*lockedOrder
	var handover *outbox.Handover
	err = pg.InTx(ctx, c.db, func(tx pgx.Tx) (err error) {
		if orders, err = lockWhole(ctx, tx, ids); err != nil {
			return err
		}
		now := c.now()
		var outs []saga.Out
		for _, o := range orders {
			was := o.Status
			changed, emitted := decide(o, now)
			outs = append(outs, emitted...)
			if !changed {
				continue
			}
			o.Compensations = o.compensations()
			todo = append(todo, &lockedOrder{id: o.ID, was: was, Progress: o.Progress, changed: true})
			moves = append(moves, move{was, o.Status, now.Sub(o.CreatedAt)})
		}
		if len(outs) == 0 { // nothing changes without an event
			return nil
		}
		if err := save(ctx, tx, slices.Values(todo)); err != nil {
			return err
		}
		var b pgx.Batch
		if handover, err = saga.Queue(&b, c.relay, "order", outs...); err != nil {
			return err
		}
		return pg.Defer(ctx, tx, &b)
	})
	handover.Done(err == nil)
	if err != nil {
		return nil, 0, fmt.Errorf("change %d orders: %w", len(ids), err)
	}
	c.waits.notifyChanged(slices.Values(todo))
	for _, m := range moves {
		c.metrics.moved(m.was, m.is, m.took)
	}
	return orders, len(moves), nil
}

// requested tells that an order was asked to be cancelled, which payment undoes, and that it is cancelled, if it is:
// that is for inventory, which has no other sign of it where payment has not heard of the order.
func cancelRequested(ctx context.Context, o *Order) []saga.Out {
	key := o.ID.String()
	outs := []saga.Out{saga.New(ctx, event.OrderCancelRequested, key, event.OrderCancelRequestedV1{
		OrderID: o.ID, Reason: o.Reason, Code: o.ReasonCode, Parameters: o.ReasonParameters,
	})}
	if o.Status == Cancelled {
		outs = append(outs, saga.New(ctx, event.OrderCancelled, key, o.cancelled(o.ID)))
	}
	return outs
}

// cancelled is the event of an order that is CANCELLED.
func (p Progress) cancelled(order uuid.UUID) event.OrderCancelledV1 {
	return event.OrderCancelledV1{OrderID: order, Reason: p.Reason, Code: p.ReasonCode, Parameters: p.ReasonParameters}
}
