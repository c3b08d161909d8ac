package checker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// repairer has the services carry out plans.
type repairer struct {
	peers three[*checker.Peer]
	by    string
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

// order carries out a plan, step by step, until one is not done. Each step says what was seen of what it changes, so
// that it changes nothing that is something else by now. Where an order cannot be made good, it is cancelled: what it
// holds is undone by the saga. answered is false where a service did not answer.
func (r *repairer) order(ctx context.Context, id uuid.UUID, held Held, p plan) (out checker.Repair, answered bool) {
	out = checker.Repair{Action: p.String()}
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
	no, refused := errors.AsType[*checker.Refusal](err)
	out.State, out.Detail = checker.Outcome(string(s), err)
	switch {
	case err == nil && o.held.refunding():
		out.Detail = "the refund waits: " + o.held.Payment.Detail
	case err == nil:
		out.Detail = o.note
	case out.State != checker.Refused:
	case final(no):
		if err := r.reconcile(ctx, o, no.Error()); err != nil {
			out.State, out.Detail = checker.Failed, out.Detail+"; and it could not be cancelled instead: "+err.Error()
		} else {
			out.Detail += "; so it was cancelled instead, and is " + o.held.Order.Status
		}
	case s == stepCharge && no.OfType("unclear"):
		out.Detail += ". " + choice(o)
	}
	after := o.held.all()
	out.After = &after
	return out, err == nil || refused
}

// finals are the types of refusals that say that an order cannot be made good: it is cancelled then. Any other, one
// that is new to this checker too, cancels nothing: it is for an operator.
var finals = []string{"out-of-stock", "insufficient-balance", "payment-declined", "account-frozen", "currency-mismatch"}

func final(no *checker.Refusal) bool { return slices.ContainsFunc(finals, no.OfType) }

// choice says what an operator has to decide of a confirmed order of which nobody can say whether it is paid, and the
// command for either.
func choice(o *patient) string {
	return fmt.Sprintf(`Does the order stay? Yes: POST /payments/%[1]s/decide of payment, with {"seen":%[2]q,"paid":true,"userId":%[3]q,"amount":%[4]d,"currency":%[5]q}. `+
		`No: POST /orders/%[1]s/reconcile of order, with {"seen":"CONFIRMED","reserved":%[6]t,"paid":false,"reason":"why","by":"who"}, and what the ledger holds of it is then found, and decided with "paid":false`,
		o.id, checker.Status(o.held.Payment), o.user, o.held.Order.Amount, o.held.Order.Currency, o.held.reserved())
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
		if no, ok := errors.AsType[*checker.Refusal](err); ok && no.OfType("unproven") {
			err = r.tellPaid(ctx, o)
		}
	case stepCancel:
		err = r.reconcile(ctx, o, reason)
	}
	return err
}

// tellPaid has payment tell order itself that it is paid: order takes nobody else's word for it, and is confirmed when
// it hears.
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

// reconcile tells order what the others hold. What is being paid back is as good as not paid to one that is still to be
// confirmed.
func (r *repairer) reconcile(ctx context.Context, o *patient, reason string) (err error) {
	paid := o.held.paid() && !(o.held.refunding() && o.held.Order.Status == statusPending)
	o.held.Order, err = r.tell(ctx, orders, o.held.Order, "/orders/"+o.id.String()+"/reconcile",
		map[string]any{"reserved": o.held.reserved(), "paid": paid, "reason": clip(reason), "by": r.by})
	return err
}

// tell sends a command with what was seen of what it changes. It returns what is held then, which is what was seen
// where it failed.
func (r *repairer) tell(ctx context.Context, service int, seen *facts.Fact, path string, body map[string]any) (*facts.Fact, error) {
	body["seen"] = checker.Status(seen)
	after, err := r.peers[service].Command(ctx, path, body)
	if err != nil {
		return seen, err
	}
	return after, nil
}

// ordered asks what was ordered, each time anew: an order that its user has cancelled since is not to be charged for.
func (r *repairer) ordered(ctx context.Context, o *patient) (d draft, err error) {
	if err := r.peers[orders].Read(ctx, http.MethodGet, "/orders/"+o.id.String(), nil, &d); err != nil {
		return draft{}, err
	}
	if o.user = d.UserID; d.Status != o.held.Order.Status {
		return draft{}, &checker.Refusal{Status: http.StatusConflict, Type: web.TypePrefix + facts.TypeChanged, Detail: "the order is " + d.Status + " by now"}
	}
	return d, d.contradicted(o)
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
