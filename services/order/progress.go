package order

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
)

// Status is how far an order is.
type Status string

// An order begins PENDING, and becomes CONFIRMED or CANCELLED. A CONFIRMED one that its user commands is CANCELLING
// until all that was done for it is undone, and then CANCELLED, for ever.
const (
	Pending    Status = "PENDING"
	Confirmed  Status = "CONFIRMED"
	Cancelling Status = "CANCELLING"
	Cancelled  Status = "CANCELLED"
)

// Progress is the part of an order that events and requests change.
type Progress struct {
	Status  Status  `json:"status" enum:"PENDING,CONFIRMED,CANCELLING,CANCELLED"`
	Reason  string  `json:"reason,omitempty" doc:"why the order was cancelled"`
	History []Entry `json:"history" nullable:"false" doc:"what happened to the order, oldest first"`

	ReasonCode       event.Code       `json:"reasonCode,omitempty" example:"out-of-stock" doc:"the reason for programs; none of an order that was cancelled before there were codes"`
	ReasonParameters event.Parameters `json:"reasonParameters,omitempty" doc:"what the code is about"`

	SettledAt *time.Time `json:"settledAt,omitempty" doc:"when the order became CONFIRMED or CANCELLED; not while it is CANCELLING"`
}

// Entry is one line of an order's history.
type Entry struct {
	At     time.Time `json:"at" doc:"when this service learned of it"`
	Status Status    `json:"status" enum:"PENDING,CONFIRMED,CANCELLING,CANCELLED" doc:"the order's status from then on"`
	Event  string    `json:"event" example:"payment.completed"`
	Detail string    `json:"detail,omitempty"`

	Code       event.Code       `json:"code,omitempty" example:"out-of-stock" doc:"the reason in the detail for programs; none where the detail is no reason, or was told before there were codes"`
	Parameters event.Parameters `json:"parameters,omitempty" doc:"what the code is about"`
}

// stamp is a time as the database keeps it, in microseconds.
func stamp(at time.Time) time.Time { return at.UTC().Truncate(time.Microsecond) }

// outcome is what another service's event says about an order.
type outcome struct {
	order  uuid.UUID
	event  string
	status Status // what the order becomes if it is PENDING; empty where it stays what it is
	undoes bool   // it tells of something that is only done for an order that was asked to be cancelled
	detail string // the reason, of a cancellation

	code       event.Code // of the reason
	parameters event.Parameters
}

// line is the history's line of it, as of an order's status.
func (n outcome) line(at time.Time, is Status) Entry {
	return Entry{At: at, Status: is, Event: n.event, Detail: n.detail, Code: n.code, Parameters: n.parameters}
}

// apply returns the progress after the outcome, in a history of its own, and what the outcome did to it.
//
// An order that has settled stays what it is: an outcome that calls for something else is only noted. A history holds
// each event once, so what comes again, even under another id, changes nothing, and a history stays short. What is
// renewed counts once more.
func (p Progress) apply(n outcome, at time.Time) (Progress, effect) {
	if p.has(n.event) && !p.renewed(n.event) {
		return p, ignored
	}
	at = stamp(at)
	did := noted
	switch {
	case n.undoes && !p.asked() && p.Status != Cancelled: // of one that is, it does no harm
		did = contradicted
		n.detail = "nobody asked for it: " + n.detail
	case n.status == "" || n.status == p.Status:
	case p.Status == Pending:
		did = settled
		p.Status, p.SettledAt = n.status, &at
		if n.status == Cancelled {
			p.Reason, p.ReasonCode, p.ReasonParameters = n.detail, n.code, n.parameters
		}
	default:
		if !p.overtook(n) {
			did = contradicted
		}
		n.detail = fmt.Sprintf("too late, the order is %s: %s", p.Status, n.detail)
	}
	p = p.noting(n.line(at, p.Status))
	if p.unwound(at) {
		did = settled
	}
	return p, did
}

// cancel returns the progress after a request to cancel the order, in a history of its own, and whether it changed.
// What is PENDING is CANCELLED at once: whatever the others have done or will do for it is theirs to undo. What is
// CONFIRMED is CANCELLING first. What is cancelled already, or about to be, stays as it is.
func (p Progress) cancel(reason string, code event.Code, at time.Time) (Progress, bool) {
	at = stamp(at)
	switch p.Status {
	case Pending:
		p.Status, p.SettledAt = Cancelled, &at
	case Confirmed:
		p.Status, p.SettledAt = Cancelling, nil
	default:
		return p, false
	}
	p.Reason, p.ReasonCode, p.ReasonParameters = reason, code, nil
	return p.noting(Entry{At: at, Status: p.Status, Event: event.OrderCancelRequested.Name(), Detail: reason, Code: code}), true
}

// noting is the progress with one more line of history.
func (p Progress) noting(e Entry) Progress {
	p.History = append(slices.Clip(p.History), e)
	return p
}

// codeHistory gives the line that tells why the order was cancelled the order's own code, if it has none. Lines of
// earlier versions have none, and a process of an earlier version writes a history anew without those that it does not
// know.
func (p *Progress) codeHistory() {
	if p.ReasonCode == "" {
		return
	}
	for i := range p.History {
		if e := &p.History[i]; e.Detail == p.Reason && (e.Status == Cancelled || e.Status == Cancelling) {
			if e.Code == "" {
				e.Code, e.Parameters = p.ReasonCode, p.ReasonParameters
			}
			return
		}
	}
}

// unwound makes a CANCELLING order CANCELLED, as of the last line of its history, when all that was done for it is
// undone. The refund and the release may come in either order. Only those since the last request to cancel count: what
// was undone before had another reason, and may have been done again since.
func (p *Progress) unwound(at time.Time) bool {
	if p.Status != Cancelling || !p.undone(event.PaymentRefunded.Name()) || !p.undone(event.InventoryReleased.Name()) {
		return false
	}
	p.Status, p.SettledAt = Cancelled, &at
	p.History[len(p.History)-1].Status = Cancelled
	return true
}

// line is the history's line of an event, or nil.
func (p Progress) line(event string) *Entry {
	if i := slices.IndexFunc(p.History, func(e Entry) bool { return e.Event == event }); i >= 0 {
		return &p.History[i]
	}
	return nil
}

func (p Progress) has(event string) bool { return p.line(event) != nil }

// undoing tells whether an event tells of something that is undone, or cannot be.
func undoing(topic string) bool {
	return topic == event.PaymentRefunded.Name() || topic == event.PaymentRefundFailed.Name() || topic == event.InventoryReleased.Name()
}

// renewed tells whether an event that the history has already means something new: an undoing after another request to
// cancel, or a payment after a refund.
func (p Progress) renewed(topic string) bool {
	return undoing(topic) && !p.undone(topic) || topic == event.PaymentCompleted.Name() && p.Status == Pending && !p.proven()
}

// sinceAsked is the progress with the part of its history that begins with the last request to cancel the order; all of
// it where there was none.
func (p Progress) sinceAsked() Progress {
	for i, e := range slices.Backward(p.History) {
		if e.Event == event.OrderCancelRequested.Name() {
			p.History = p.History[i:]
			break
		}
	}
	return p
}

// undone tells whether an event came since the last request to cancel the order.
func (p Progress) undone(event string) bool { return p.sinceAsked().has(event) }

// proven tells whether payment's own events say that the order is paid: the last of them is not a refund.
func (p Progress) proven() bool {
	for _, e := range slices.Backward(p.History) {
		switch e.Event {
		case event.PaymentCompleted.Name():
			return true
		case event.PaymentRefunded.Name():
			return false
		}
	}
	return false
}

// asked tells whether somebody has asked for the order to be cancelled. Where nobody has, the saga itself may have
// failed.
func (p Progress) asked() bool { return p.has(event.OrderCancelRequested.Name()) }

// overtook tells whether the outcome was on its way when the order was cancelled on request: payment had charged, and
// pays back because it was asked to.
func (p Progress) overtook(n outcome) bool {
	return p.asked() && n.event == event.PaymentCompleted.Name()
}

// effect is what an outcome did to an order.
type effect int

const (
	ignored      effect = iota // it came before
	noted                      // a line of history
	settled                    // the order became CONFIRMED or CANCELLED
	contradicted               // noted, though it calls for something else than what the order is
)

// Compensation is something that is undone for an order that is cancelled.
type Compensation struct {
	What  string `json:"what" enum:"refund,release"`
	State string `json:"state" enum:"PENDING,FAILED,DONE" doc:"FAILED is tried again until it is DONE"`
	Error string `json:"error,omitempty" doc:"why it failed"`
}

// compensations follow from the history, in the order in which they are due: the last thing that was done first. Where
// nothing was charged, or nothing reserved, there is nothing to undo; as long as that is not known it is PENDING.
func (p Progress) compensations() []Compensation {
	if p.Status != Cancelling && p.Status != Cancelled {
		return nil
	}
	var all []Compensation
	failure := p.sinceAsked().line(event.PaymentRefundFailed.Name())
	switch {
	case !p.asked():
	case p.undone(event.PaymentRefunded.Name()):
		all = append(all, Compensation{What: refund, State: "DONE"})
	case failure != nil:
		all = append(all, Compensation{What: refund, State: "FAILED", Error: failure.Detail})
	case p.has(event.PaymentCompleted.Name()) || !p.has(event.PaymentFailed.Name()):
		all = append(all, Compensation{What: refund, State: "PENDING"})
	}
	switch {
	case p.has(event.InventoryReservationFailed.Name()):
	case p.undone(event.InventoryReleased.Name()):
		all = append(all, Compensation{What: "release", State: "DONE"})
	default:
		all = append(all, Compensation{What: "release", State: "PENDING"})
	}
	return all
}

const refund = "refund"
