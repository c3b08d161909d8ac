package checker

import (
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/checker"
)

// step is a part of a repair.
type step string

const (
	stepReserve  step = "reserve"
	stepRelease  step = "release"
	stepCharge   step = "charge"
	stepRefund   step = "refund"
	stepConfirm  step = "confirm"  // order is told that it is reserved and paid
	stepCancel   step = "cancel"   // order is told what is held and cancels
	stepWait     step = "wait"     // for the saga, which tries it again by itself
	stepOperator step = "operator" // for a person
)

// plan is what puts an order right, step by step.
type plan struct {
	steps  []step
	reason string // what order is told, and its user if it cancels
	advice string // to the person whom it is left to
}

// todo tells whether any of it is the checker's to do.
func (p plan) todo() bool {
	return slices.ContainsFunc(p.steps, func(s step) bool { return s != stepWait && s != stepOperator })
}

// planFor says what to do about an order with flaws: there is one plan, whatever number of them it has. What is held
// decides, with the order as the one who knows what its user was told; where it does not know yet, the money does.
func planFor(h Held, flaws []checker.Flaw) plan {
	if len(flaws) == 0 {
		return plan{}
	}
	if advice := adviceFor(h, flaws); advice != "" {
		return plan{steps: []step{stepOperator}, advice: advice}
	}
	var p plan
	add := func(due bool, s step) {
		if due {
			p.steps = append(p.steps, s)
		}
	}
	var status string
	if h.Order != nil {
		status = h.Order.Status
	}
	switch {
	case status == statusConfirmed:
		add(!h.reserved(), stepReserve)
		add(!h.paid(), stepCharge)
	case status == statusPending && h.paid() && !h.refunding():
		p.reason = "it is paid"
		add(!h.reserved(), stepReserve)
		add(true, stepConfirm)
	case status == statusPending:
		p.reason = "expired"
		if h.refunding() {
			p.reason = "the payment is being paid back"
		}
		add(true, stepCancel)
	default: // what is held is to be undone: the last thing that was done first
		add(h.paid() && !h.refunding(), stepRefund)
		add(h.reserved(), stepRelease)
		add(status == statusCancelling && !h.refunding(), stepCancel)
		add(h.refunding(), stepWait)
		p.reason = "its cancellation was not completed"
	}
	return p
}

func (p plan) String() string {
	names := make([]string, len(p.steps))
	for i, s := range p.steps {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}
