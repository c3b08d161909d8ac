package checker

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/web"
)

// adviceFor says what a person has to decide about an order, and the commands to do it with; empty where what is held
// decides. Two services hold different things of an order that is in order otherwise, or only one service knows of it:
// nothing says which of them is right, and a guess would take money from somebody, or send goods that nobody has
// ordered.
func adviceFor(h Held, flaws []checker.Flaw) string {
	has := func(kinds ...checker.Kind) bool {
		return slices.ContainsFunc(flaws, func(f checker.Flaw) bool { return slices.Contains(kinds, f.Kind) })
	}
	switch {
	case has(PaidWrongAmount, PaidWrongUser):
		user := ""
		if h.Order.UserID != nil {
			user = *h.Order.UserID
		}
		return fmt.Sprintf(`The event order.created of %[1]s tells what was ordered. If the order is right: POST /payments/%[1]s/refund of payment, with {"seen":%[2]q,"orphan":true}, which pays back `+
			`to whom was charged, then POST /payments/%[1]s/charge, with {"seen":"REFUNDED","userId":%[3]q,"amount":%[4]d,"currency":%[5]q}. If the payment is right, the order's row has to be put back`,
			h.Order.ID, h.Payment.Status, user, h.Order.Amount, h.Order.Currency)
	case has(ReservedWrongItems):
		return fmt.Sprintf(`The event order.created of %[1]s tells what was ordered. If the order is right: POST /reservations/%[1]s/release of inventory, with {"seen":"RESERVED","orphan":true}, then `+
			`POST /reservations/%[1]s/reserve, with {"seen":"RELEASED","items":…} and the items of GET /orders/%[1]s. If the reservation is right, the order's row has to be put back`, h.Order.ID)
	case has(ConfirmedNotPaid) && h.Reservation == nil && h.Payment == nil:
		return fmt.Sprintf(`Nobody but order knows of it: its row is a copy or has another id, or both others have lost theirs. If it was ordered: POST /reservations/%[1]s/reserve and `+
			`POST /payments/%[1]s/charge, each with {"seen":"NONE",…}. If not, its row has to go`, h.Order.ID)
	}
	return ""
}

// contradicted refuses to reserve or charge for an order that is CONFIRMED, and whose own history says otherwise: its
// status was changed behind its back, and its user may have been told that it is cancelled.
func (d draft) contradicted(o *patient) error {
	n := len(d.History)
	if d.Status != statusConfirmed || n == 0 || d.History[n-1].Status == statusConfirmed {
		return nil
	}
	return &checker.Refusal{
		Status: http.StatusConflict, Type: web.TypePrefix + "contradicted", Title: "Contradicted",
		Detail: fmt.Sprintf(`the order is CONFIRMED, and its history ends with %[1]s. If it is not to stay: POST /orders/%[2]s/reconcile of order, with {"seen":"CONFIRMED","reserved":%[3]t,"paid":%[4]t,"reason":"why","by":"who"}; `+
			`if it is, reserve and charge for it`, d.History[n-1].Status, o.id, o.held.reserved(), o.held.paid()),
	}
}
