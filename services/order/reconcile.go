package order

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// eventReconciled is the line of history that tells that an order became something because somebody compared what all
// hold of it.
const eventReconciled = "order.reconciled"

// held is what inventory and payment hold of an order.
type held struct{ reserved, paid bool }

func (h held) all() bool     { return h.reserved && h.paid }
func (h held) nothing() bool { return !h.reserved && !h.paid }

// comparison is what somebody found who compared what all services hold of an order.
type comparison struct {
	seen   Status // the order's status at that time
	held   held
	reason string // what is wrong
	by     string // who compared
}

// conclude returns what an order should be, given what the others hold of it. CANCELLED is final.
//
// A CONFIRMED order that lacks its items but is paid is CANCELLING until it is paid back, as if its user had asked for
// that. One that is not paid is CANCELLED at once, for no refund would ever end its cancellation.
func (s Status) conclude(h held) Status {
	switch {
	case s == Pending && h.all():
		return Confirmed
	case s == Pending, s == Confirmed && !h.paid, s == Cancelling && h.nothing():
		return Cancelled
	case s == Confirmed && !h.reserved:
		return Cancelling
	}
	return s
}

// undoing tells whether something is still held for an order that is cancelled, or on its way there.
func (s Status) undoing(h held) bool {
	return (s == Cancelling || s == Cancelled) && !h.nothing()
}

// reconcile returns the progress after a comparison, and whether it changed. What the history says of earlier events
// does not matter: the comparison shows that it is not so.
//
// What is undone from now on gets a line as if a user had asked for it. So the refund and the release that follow are
// no contradictions, and show as compensations.
func (p Progress) reconcile(c comparison, at time.Time) (Progress, bool) {
	was, is := p.Status, p.Status.conclude(c.held)
	if is == was {
		return p, false
	}
	at = stamp(at)
	p.Status, p.SettledAt = is, nil
	if is != Cancelling {
		p.SettledAt = &at
	}
	if is != Confirmed && was != Cancelling {
		p.Reason = ""
		p = p.because(c).noting(c.line(at, is, event.OrderCancelRequested.Name(), c.reason))
	}
	return p.noting(c.line(at, is, eventReconciled, c.reason+" ("+c.by+")")), true
}

// line is a line of history that the comparison brought about.
func (c comparison) line(at time.Time, is Status, name, detail string) Entry {
	return Entry{At: at, Status: is, Event: name, Detail: detail, Code: event.CodeReconciled, Parameters: event.Parameters{"by": c.by}}
}

// because is the progress with the comparison as its reason, if it has none.
func (p Progress) because(c comparison) Progress {
	if p.Reason == "" {
		p.Reason, p.ReasonCode, p.ReasonParameters = c.reason, event.CodeReconciled, event.Parameters{"by": c.by}
	}
	return p
}

// errUnproven says that an order is not confirmed because somebody says that it is paid: payment has not told.
var errUnproven = errors.New("payment has not told that the order is paid")

// reconcile changes one order by a comparison, and emits what those need who have to act on it. It returns the order as
// it is then, or none.
//
// If the order has changed since it was seen, nothing is done. If it has become something else than the comparison
// would have made of it, and there is something to do, that is a conflict: what it is.
//
// A caller's word is enough to cancel, for what is held is undone by those who hold it. It is not enough to confirm,
// for nobody looks again before the goods leave: without payment's own event in the history it is [errUnproven], and
// nothing is done.
func (c *commands) reconcile(ctx context.Context, id uuid.UUID, found comparison) (o *Order, conflict Status, err error) {
	var refused error
	orders, _, err := c.change(ctx, []uuid.UUID{id}, func(o *Order, now time.Time) (bool, []saga.Out) {
		was := o.Status
		progress, moves := o.Progress.reconcile(found, now)
		switch {
		case !moves && !was.undoing(found.held):
			return false, nil
		case was != found.seen:
			if found.seen.conclude(found.held) != was {
				conflict = was
			}
			return false, nil
		case !moves: // it was asked for before, and is asked for again as long as anything is held
			again := *o
			again.Progress = o.because(found)
			return false, cancelRequested(ctx, &again)
		case progress.Status == Confirmed && !o.proven():
			refused = errUnproven
			return false, nil
		}
		o.Progress = progress
		key := o.ID.String()
		switch {
		case o.Status == Confirmed:
			return true, []saga.Out{saga.New(ctx, event.OrderConfirmed, key, event.OrderConfirmedV1{OrderID: o.ID})}
		case was == Cancelling:
			return true, []saga.Out{saga.New(ctx, event.OrderCancelled, key, o.because(found).cancelled(o.ID))}
		default:
			return true, cancelRequested(ctx, o)
		}
	})
	if err != nil || len(orders) == 0 {
		return nil, "", err
	}
	return orders[0], conflict, refused
}
