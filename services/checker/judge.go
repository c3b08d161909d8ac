package checker

import (
	"fmt"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
)

// The statuses that the services tell, as far as the checker decides by them.
const (
	statusPending    = "PENDING"
	statusConfirmed  = "CONFIRMED"
	statusCancelling = "CANCELLING"
	statusCancelled  = "CANCELLED"
	statusRefunding  = "REFUNDING" // of a payment: still COMPLETED, and its refund waits
)

// terms are what an order is judged by, beside what is held of it.
type terms struct {
	now        time.Time
	pending    time.Duration // for so long an order may be PENDING without having been paid
	cancelling time.Duration // for so long it may be CANCELLING, and a refund may wait
}

// differs tells whether there is something to judge: the order is not in all sets or in none, or who was to pay what,
// or the items, are not the same everywhere, or it is not settled. It is what a difference of digests comes from.
func (h Held) differs() bool {
	confirmed := h.Order != nil && h.Order.Member
	return confirmed != h.reserved() || confirmed != h.paid() || h.wrongAmount() || h.wrongUser() || h.wrongItems() || h.open()
}

func (h Held) open() bool {
	return h.Order != nil && (h.Order.Status == statusPending || h.Order.Status == statusCancelling)
}

func (h Held) wrongAmount() bool {
	return h.Order != nil && h.Order.Member && h.paid() && (h.Order.Amount != h.Payment.Amount || h.Order.Currency != h.Payment.Currency)
}

// wrongUser and wrongItems tell nothing where a service does not say whose or which: one of an earlier version.
func (h Held) wrongUser() bool {
	return h.Order != nil && h.Order.Member && h.paid() && h.Order.UserID != nil && h.Payment.UserID != nil && *h.Order.UserID != *h.Payment.UserID
}

func (h Held) wrongItems() bool {
	return h.Order != nil && h.Order.Member && h.reserved() && h.Order.Items != "" && h.Reservation.Items != "" && h.Order.Items != h.Reservation.Items
}

// flaws are what is wrong if nothing is on its way.
func (h Held) flaws(t terms) (found []checker.Flaw) {
	add := func(wrong bool, kind checker.Kind, format string, args ...any) {
		if wrong {
			found = append(found, checker.Flaw{Kind: kind, Detail: fmt.Sprintf(format, args...) + ": " + h.String()})
		}
	}
	// A refund that waits has one deadline, whatever became of its order: until then it is on its way.
	waits := h.refunding() && t.now.Sub(h.Payment.ChangedAt) <= t.cancelling
	if h.Order == nil {
		add(h.reserved(), ReservedWithoutOrder, "stock is reserved for an order that is not there")
		add(h.paid() && !waits, PaidWithoutOrder, "an order that is not there is paid")
		return found
	}
	age := t.now.Sub(h.Order.ChangedAt)
	switch h.Order.Status {
	case statusConfirmed:
		add(!h.reserved(), ConfirmedNotReserved, "a confirmed order has nothing reserved")
		add(!h.paid(), ConfirmedNotPaid, "a confirmed order is not paid")
		add(h.wrongAmount(), PaidWrongAmount, "a confirmed order is paid with another amount")
		if h.wrongUser() {
			add(true, PaidWrongUser, "a confirmed order of %q is paid by %q", *h.Order.UserID, *h.Payment.UserID)
		}
		if h.wrongItems() {
			add(true, ReservedWrongItems, "a confirmed order of %s has %s reserved", h.Order.Items, h.Reservation.Items)
		}
	case statusCancelled:
		add(h.reserved(), ReservedForCancelled, "stock is reserved for a cancelled order")
		add(h.paid() && !waits, PaidForCancelled, "a cancelled order is paid")
	case statusPending:
		// Paid, it needs no deadline: what would confirm it has been told.
		add(h.paid(), PaidNotConfirmed, "a paid order is not confirmed")
		add(!h.paid() && age > t.pending, StuckPending, "an order is PENDING for %s", age.Round(time.Second))
	case statusCancelling:
		add(age > t.cancelling && (!waits || h.reserved()), StuckCancelling, "an order is CANCELLING for %s", age.Round(time.Second))
	}
	return found
}
