package checker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// maxLost is after how many orders in a row that a service gave no answer for the rest is left to the next check.
const maxLost = 3

// repairer has the services carry out plans.
type repairer struct {
	peers three[*peer]
	by    string
	left  int // repairs that the check may still make: a mistake of the checker's, or of who set it up, does no more harm than that
}

// patient is an order that is being put right.
type patient struct {
	id   uuid.UUID
	held Held   // as the services have answered last
	user string // whose order it is, once that was asked for
	note string // how what was done goes on, for people
}

// draft is what was ordered, as order tells it, and what the order is by now.
type draft struct {
	Status string `json:"status"`
	UserID string `json:"userId"`
	Items  []struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	} `json:"items"`
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
	History  []struct {
		Status string `json:"status"`
	} `json:"history"`
}

// order carries out a plan, step by step, until one is not done. Each step says what was seen of what it changes, so that it changes nothing
// that is something else by now. Where an order cannot be made good, it is cancelled: what it holds is undone by the saga. answered is false where a
// service did not answer.
func (r *repairer) order(ctx context.Context, id uuid.UUID, held Held, p plan) (out Repair, answered bool) {
	out = Repair{Action: p.String(), State: Done, Before: &held}
	o := &patient{id: id, held: held}
	var err error
	var s step
	for _, s = range p.steps {
		if s == stepCancel && o.held.refunding() && held.Order.Status == statusCancelling {
			break // it cannot end before the refund does
		}
		if err = r.step(ctx, o, s, p.reason); err != nil {
			break
		}
	}
	out.After = &o.held
	no, refused := errors.AsType[*refusal](err)
	switch {
	case err == nil && o.held.refunding():
		out.Detail = "the refund waits: " + o.held.Payment.Detail
	case err == nil:
		out.Detail = o.note
	case !refused:
		out.State, out.Detail = Failed, err.Error()
	case no.is(facts.TypeChanged):
		out.State, out.Detail = Failed, "changed meanwhile, the next check looks again: "+no.Error()
	case no.Status != http.StatusConflict:
		out.State, out.Detail = Failed, fmt.Sprintf("%s: %d: %s", s, no.Status, no)
	case final(no):
		out.State, out.Detail = Refused, no.Error()
		if err := r.reconcile(ctx, o, no.Error()); err != nil {
			out.State, out.Detail = Failed, out.Detail+"; and it could not be cancelled instead: "+err.Error()
		} else {
			out.Detail += "; so it was cancelled instead, and is " + o.held.Order.Status
		}
	default:
		out.State, out.Detail = Refused, no.Error()
		if s == stepCharge && no.is("unclear") {
			out.Detail += ". " + choice(o)
		}
	}
	return out, err == nil || refused
}

// finals are the types of refusals that say that an order cannot be made good: it is cancelled then. Any other, one that is new to this checker
// too, cancels nothing: it is for an operator.
var finals = []string{"out-of-stock", "insufficient-balance", "payment-declined", "account-frozen", "currency-mismatch"}

func final(no *refusal) bool { return slices.ContainsFunc(finals, no.is) }

// choice says what an operator has to decide of a confirmed order of which nobody can say whether it is paid, and the command for either.
func choice(o *patient) string {
	return fmt.Sprintf(`Does the order stay? Yes: POST /payments/%[1]s/decide of payment, with {"seen":%[2]q,"paid":true,"userId":%[3]q,"amount":%[4]d,"currency":%[5]q}. `+
		`No: POST /orders/%[1]s/reconcile of order, with {"seen":"CONFIRMED","reserved":%[6]t,"paid":false,"reason":"why","by":"who"}, and what the ledger holds of it is then found, and decided with "paid":false`,
		o.id, status(o.held.Payment), o.user, o.held.Order.Amount, o.held.Order.Currency, o.held.reserved())
}

// step has the service that it concerns do it.
func (r *repairer) step(ctx context.Context, o *patient, s step, reason string) (err error) {
	switch s {
	case stepReserve:
		var d draft
		if d, err = r.ordered(ctx, o); err == nil {
			o.held.Reservation, err = r.tell(ctx, reservations, o.held.Reservation, "/reservations/"+o.id.String()+"/reserve", map[string]any{"items": d.Items})
		}
	case stepCharge:
		var d draft
		if d, err = r.ordered(ctx, o); err == nil {
			o.held.Payment, err = r.tell(ctx, payments, o.held.Payment, "/payments/"+o.id.String()+"/charge",
				map[string]any{"userId": d.UserID, "amount": d.Amount, "currency": d.Currency})
		}
	case stepRelease:
		o.held.Reservation, err = r.tell(ctx, reservations, o.held.Reservation, "/reservations/"+o.id.String()+"/release", undo(o))
	case stepRefund:
		o.held.Payment, err = r.tell(ctx, payments, o.held.Payment, "/payments/"+o.id.String()+"/refund", undo(o))
	case stepConfirm:
		err = r.reconcile(ctx, o, reason)
		if no, ok := errors.AsType[*refusal](err); ok && no.is("unproven") {
			err = r.tellPaid(ctx, o)
		}
	case stepCancel:
		err = r.reconcile(ctx, o, reason)
	}
	return err
}

// tellPaid has payment tell order itself that it is paid: order takes nobody else's word for it, and is confirmed when it hears.
func (r *repairer) tellPaid(ctx context.Context, o *patient) error {
	d, err := r.ordered(ctx, o)
	if err != nil {
		return err
	}
	o.note = "payment tells the order again that it is paid, which confirms it"
	o.held.Payment, err = r.tell(ctx, payments, o.held.Payment, "/payments/"+o.id.String()+"/charge",
		map[string]any{"userId": d.UserID, "amount": d.Amount, "currency": d.Currency, "tell": true})
	return err
}

// undo is the body of a command that undoes something. Of an order that is not there, nobody is to be told.
func undo(o *patient) map[string]any {
	body := map[string]any{}
	if o.held.Order == nil {
		body["orphan"] = true
	}
	return body
}

// reconcile tells order what the others hold. What is being paid back is as good as not paid to one that is still to be confirmed.
func (r *repairer) reconcile(ctx context.Context, o *patient, reason string) (err error) {
	paid := o.held.paid() && !(o.held.refunding() && o.held.Order.Status == statusPending)
	o.held.Order, err = r.tell(ctx, orders, o.held.Order, "/orders/"+o.id.String()+"/reconcile",
		map[string]any{"reserved": o.held.reserved(), "paid": paid, "reason": clip(reason), "by": r.by})
	return err
}

// tell sends a command with what was seen of what it changes. It returns what is held then, which is what was seen where it failed.
func (r *repairer) tell(ctx context.Context, service int, seen *facts.Fact, path string, body map[string]any) (*facts.Fact, error) {
	body["seen"] = status(seen)
	after, err := r.peers[service].command(ctx, path, body)
	if err != nil {
		return seen, err
	}
	return after, nil
}

// status is a fact's; of nothing it is NONE.
func status(f *facts.Fact) string {
	if f == nil {
		return facts.None
	}
	return f.Status
}

// ordered asks what was ordered, each time anew: an order that its user has cancelled since is not to be charged for.
func (r *repairer) ordered(ctx context.Context, o *patient) (d draft, err error) {
	if err := r.peers[orders].read(ctx, http.MethodGet, "/orders/"+o.id.String(), nil, &d); err != nil {
		return draft{}, err
	}
	if o.user = d.UserID; d.Status != o.held.Order.Status {
		return draft{}, &refusal{Status: http.StatusConflict, Type: web.TypePrefix + facts.TypeChanged, Detail: "the order is " + d.Status + " by now"}
	}
	return d, d.contradicted(o)
}

// recountable is a kind that a service puts right with a command: to count anew.
type recountable struct {
	kind    Kind
	service int
	path    string
}

// recounts are those commands, in the order in which they must be given: balances show which entry of a transfer is missing, so they stay as they are
// until transfers are whole.
var recounts = []recountable{
	{StockMismatch, reservations, "/products/"},
	{TransferUnbalanced, payments, "/transfers/"},
	{TransferMismatch, payments, "/transfers/"},
	{ChargeWithoutPayment, payments, "/payments/"},
	{PaymentMismatch, payments, "/payments/"},
	{BalanceMismatch, payments, "/accounts/"},
}

// recountedBy tells whether a service puts right findings of a kind.
func recountedBy(kind Kind, service int) bool {
	return slices.ContainsFunc(recounts, func(r recountable) bool { return r.kind == kind && r.service == service })
}

// breaches has a service put right what broke its own rules. begin writes each down. Payment itself refuses to count anew what goes by a transfer
// that is not whole: only that.
func (r *repairer) breaches(ctx context.Context, service int, found []Finding, begin func(context.Context, ...Finding) (func(Repair, any), error)) error {
	for _, rule := range recounts {
		for i := range found {
			f := &found[i]
			switch {
			case f.Kind != rule.kind || rule.service != service || f.Repair.State != Planned:
			case r.left == 0:
				f.Repair.Detail = "not yet: one check makes only so many repairs"
			default:
				end, err := begin(ctx, *f)
				if err != nil {
					return err
				}
				var after json.RawMessage
				f.Repair, after = r.recount(ctx, rule.service, rule.path+url.PathEscape(f.subject()))
				end(f.Repair, after)
				r.left--
			}
		}
	}
	return nil
}

// recount returns also what the service answered: what it has counted.
func (r *repairer) recount(ctx context.Context, service int, path string) (out Repair, after json.RawMessage) {
	out = Repair{Action: actionRecount, State: Done}
	err := r.peers[service].call(ctx, http.MethodPost, path+"/recount", struct{}{}, &after)
	if no, ok := errors.AsType[*refusal](err); ok && no.Status == http.StatusConflict {
		out.State, out.Detail = Refused, no.Error()
	} else if err != nil {
		out.State, out.Detail = Failed, err.Error()
	}
	return out, after
}

const maxReason = 256 // characters that services take as a reason

// clip makes a text fit to be a reason.
func clip(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }), " ")
	if all := []rune(text); len(all) > maxReason {
		return string(all[:maxReason])
	}
	return text
}
