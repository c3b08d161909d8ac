package order

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// source is what order holds of orders: those that are CONFIRMED. An order became what it is with the last line of its history.
var source = facts.Source{
	Set: "confirmed", Table: "orders", ID: "id", Member: "status = 'CONFIRMED'", Open: "status IN ('PENDING', 'CANCELLING')", Amount: "amount",
	Currency: "currency", User: "user_id", Items: "items",
	Facts: `SELECT id, status = 'CONFIRMED', status, amount, currency, coalesce((history -> -1 ->> 'at')::timestamptz, created_at), reason, user_id, ` +
		facts.ItemsSQL("items") + ` FROM orders`,
}

// fact is the order as source tells it.
func (o *Order) fact() facts.Fact {
	items := make([]facts.Item, len(o.Items))
	for i, item := range o.Items {
		items[i] = facts.Item(item)
	}
	f := facts.Fact{
		ID: o.ID, Member: o.Status == Confirmed, Status: string(o.Status), Amount: o.Amount, Currency: o.Currency, ChangedAt: o.CreatedAt, Detail: o.Reason,
		UserID: &o.UserID, Items: facts.ItemsText(items),
	}
	if n := len(o.History); n > 0 {
		f.ChangedAt = o.History[n-1].At
	}
	return f
}

// eventReconciled is the line of history that tells that an order became something because somebody compared what all hold of it.
const eventReconciled = "order.reconciled"

// held is what the others hold of an order.
type held struct{ reserved, paid bool }

// reconcile returns the progress after order was told what the others hold, and whether it changed. An order that is PENDING is
// CONFIRMED if nothing lacks and otherwise cancelled. One that is CONFIRMED and lacks something cannot be fulfilled: if it is paid,
// it is CANCELLING until it is paid back, as if its user had asked for that; if it is not, it is CANCELLED, for nobody would tell of
// a refund. One that is CANCELLING is CANCELLED when nothing is held any more. CANCELLED is final.
//
// It does not matter what was heard before: that is what turned out not to be so. But what is undone from now on was asked for, which
// the history tells as it does of any request: what the others tell of it then is no contradiction, and shows as a compensation.
func (p Progress) reconcile(h held, reason, by string, at time.Time) (Progress, bool) {
	is := p.Status
	at = stamp(at)
	switch {
	case p.Status == Pending && h.reserved && h.paid:
		is = Confirmed
	case p.Status == Pending, p.Status == Confirmed && !h.paid, p.Status == Cancelling && !h.reserved && !h.paid:
		is = Cancelled
	case p.Status == Confirmed && !h.reserved:
		is = Cancelling
	}
	if is == p.Status {
		return p, false
	}
	if is == Confirmed || is == Cancelled {
		p.SettledAt = &at
	} else {
		p.SettledAt = nil
	}
	undo := is != Confirmed && p.Status != Cancelling
	p.Status = is
	if undo {
		p.Reason = ""
		p = p.because(reason, by)
		p = p.noting(reconciled(at, is, event.OrderCancelRequested.Name(), reason, by))
	}
	return p.noting(reconciled(at, is, eventReconciled, reason+" ("+by+")", by)), true
}

// reconciled is a line of history that somebody's comparison brought about.
func reconciled(at time.Time, is Status, name, detail, by string) Entry {
	return Entry{At: at, Status: is, Event: name, Detail: detail, Code: event.CodeReconciled, Parameters: event.Parameters{"by": by}}
}

// because is the progress with a reason, in case that it has none.
func (p Progress) because(reason, by string) Progress {
	if p.Reason == "" {
		p.Reason, p.ReasonCode, p.ReasonParameters = reason, event.CodeReconciled, event.Parameters{"by": by}
	}
	return p
}

// errUnproven says that an order is not confirmed because somebody says that it is paid: payment has not told.
var errUnproven = errors.New("payment has not told that the order is paid")

// reconcile has one order draw its conclusions, and tells those who have to act on them: what is to be undone is asked for again as
// long as it is held. It returns the order as it is then, or none; changed is what it is, if that is neither what was seen nor what
// would become of that, in which case nothing is done.
//
// What a caller says can cancel, which undoes what is held by asking those who hold it. To confirm takes more than a word, for nobody looks again
// before the goods leave: without payment's own event in the history it is [errUnproven], and nothing is done.
func (c *canceller) reconcile(ctx context.Context, id uuid.UUID, seen Status, h held, reason, by string) (o *Order, changed Status, err error) {
	unproven := false
	orders, _, err := c.change(ctx, []uuid.UUID{id}, func(o *Order, now time.Time) (bool, []saga.Out) {
		was := o.Status
		p, moves := o.Progress.reconcile(h, reason, by, now)
		again := was == Cancelling || was == Cancelled && (h.reserved || h.paid)
		if was != seen {
			wanted, _ := Progress{Status: seen}.reconcile(h, reason, by, now)
			if (moves || again) && wanted.Status != was {
				changed = was
			}
			return false, nil
		}
		if unproven = moves && p.Status == Confirmed && !o.proven(); unproven {
			return false, nil
		}
		o.Progress = p
		key := o.ID.String()
		switch {
		case moves && o.Status == Confirmed:
			return true, []saga.Out{saga.New(ctx, event.OrderConfirmed, key, event.OrderConfirmedV1{OrderID: o.ID})}
		case was == Cancelling && moves:
			return true, []saga.Out{saga.New(ctx, event.OrderCancelled, key, o.because(reason, by).cancelled(o.ID))}
		case moves || again:
			why := *o
			why.Progress = o.because(reason, by)
			return moves, requested(ctx, &why)
		}
		return false, nil
	})
	if err != nil || len(orders) == 0 {
		return nil, changed, err
	}
	if unproven {
		return orders[0], "", errUnproven
	}
	return orders[0], changed, nil
}

type reconcileInput struct {
	ID   uuid.UUID `path:"id"`
	Body struct {
		Seen     Status `json:"seen" enum:"PENDING,CONFIRMED,CANCELLING,CANCELLED" doc:"the order's status as the sender has seen it"`
		Reserved bool   `json:"reserved" doc:"inventory holds what was ordered"`
		Paid     bool   `json:"paid" doc:"payment holds what was to be paid"`
		Reason   string `json:"reason" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" example:"expired"`
		By       string `json:"by" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 256 characters without control characters" doc:"who has looked" example:"checker"`
	}
}

func (h *handlers) registerReconcile(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "reconcile-order", Method: http.MethodPost, Path: "/orders/{id}/reconcile", Summary: "Tell an order what inventory and payment hold",
		Description: "For who has compared all three, and found that they disagree. The order draws its conclusions: it is confirmed, cancelled, or stays what it is. " +
			"One that has drawn them since the sender has looked stays what it is, so the request can be sent again safely. " +
			"If it is anything else than what was seen, and would change, it is a 409 of the type changed-meanwhile. " +
			"None is confirmed by a request alone: where payment has not told that it is paid, it is a 409 of the type unproven; payment can be asked to tell it again.",
		Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, h.reconcileOrder)
}

func (h *handlers) reconcileOrder(ctx context.Context, in *reconcileInput) (*facts.Output, error) {
	b := in.Body
	o, changed, err := h.reconcile(ctx, in.ID, b.Seen, held{b.Reserved, b.Paid}, b.Reason, b.By)
	switch {
	case errors.Is(err, errUnproven):
		return nil, web.Problem(http.StatusConflict, "unproven", "Unproven", err.Error())
	case err != nil:
		return nil, web.Fault(ctx, err)
	case o == nil:
		return nil, web.NotFound("there is no order %s", in.ID)
	}
	return facts.Reply(o.fact(), string(b.Seen), string(changed))
}
