// Package payment is the service that charges for orders, each once, and pays back those that are undone. Its accounts
// are a ledger: money moves between them and is neither made nor lost.
//
//   - payment.go, ledger.go: the rules of charges, refunds and transfers; no I/O
//   - routes.go, refund.go, retrier.go: the events it reacts to, and refunds that are tried again
//   - accounts.go, transfers.go, fold.go: how money moves in a transaction
//   - store*.go: every query; its schema is [migrations/payment]
//   - http.go: the public API
//   - commands*.go, repair.go, recount.go, decide.go, correct.go: the operator's commands
//   - spans.go, trace.go, lost.go, whole.go: the audit, and what may be counted anew
//   - run.go: settings, and what runs
//
// [migrations/payment]: https://github.com/converge-dev/converge/tree/main/migrations/payment
package payment

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
)

// Status of a payment.
type Status string

// A payment is made, with its outcome, in one step. One that completed can be paid back.
const (
	Completed Status = "COMPLETED"
	Failed    Status = "FAILED"
	Refunded  Status = "REFUNDED"
)

// Payment is the one attempt to charge for an order, and its outcome. One that failed because the order was cancelled
// before anybody knew what to charge has no payer and no amount.
type Payment struct {
	OrderID  uuid.UUID `json:"orderId"`
	ID       uuid.UUID `json:"paymentId"`
	UserID   string    `json:"userId" doc:"who pays"`
	Amount   int64     `json:"amount" doc:"in minor units" example:"4200"`
	Currency string    `json:"currency" doc:"ISO 4217" example:"EUR"`
	Status   Status    `json:"status" enum:"COMPLETED,FAILED,REFUNDED"`
	Reason   string    `json:"reason,omitempty" doc:"why the payment failed; nothing was charged then"`

	ReasonCode       event.Code       `json:"reasonCode,omitempty" example:"insufficient-balance" doc:"the same for programs"`
	ReasonParameters event.Parameters `json:"reasonParameters,omitempty" doc:"what the code is about"`
}

// Rule says which payments are declined.
type Rule struct {
	Above int64    // amounts above this many minor units of any currency; 0: none
	Users []string // whatever these users pay
}

// decline returns the reason to decline a payment, and what it is about, or nothing to accept it.
func (r Rule) decline(user string, amount int64) (reason string, about event.Parameters) {
	switch {
	case slices.Contains(r.Users, user):
		return fmt.Sprintf("user %s is declined", user), event.Parameters{"userId": user}
	case r.Above > 0 && amount > r.Above:
		return fmt.Sprintf("amount %d is above the limit of %d", amount, r.Above), event.Parameters{"amount": digits(amount), "limit": digits(r.Above)}
	}
	return "", nil
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }

// attempt is the payment for an order whose items are reserved.
func (r Rule) attempt(id uuid.UUID, e event.InventoryReservedV1) Payment {
	p := Payment{OrderID: e.OrderID, ID: id, UserID: e.UserID, Amount: e.Amount, Currency: e.Currency, Status: Completed}
	if reason, about := r.decline(e.UserID, e.Amount); reason != "" {
		return p.failed(reason).because(event.CodeDeclined, about)
	}
	return p
}

// charge is the payment for an order whose items are reserved, with the user's money moved to the merchant unless it
// failed: then it says why, too. An order that costs nothing moves nothing: its payment has no entries.
func (c *cashier) charge(b *unitOfWork, id uuid.UUID, e event.InventoryReservedV1) (Payment, *Refusal) {
	p := c.rule.attempt(id, e)
	if p.Status == Failed {
		return p, &Refusal{paymentDeclined, p.Reason}
	}
	if !c.bank.user(e.UserID) {
		p = p.failed(fmt.Sprintf("account %s is not a user's", e.UserID)).because(event.CodeNotAUsersAccount, event.Parameters{"accountId": e.UserID})
		return p, &Refusal{paymentDeclined, p.Reason}
	}
	if e.Amount == 0 {
		return p, nil
	}
	t := Transfer{
		ID: id, Kind: Charge, From: e.UserID, To: c.bank.merchantOf(e.Currency), Amount: e.Amount, Currency: e.Currency, Order: e.OrderID,
	}
	if refusal := b.transfer(t); refusal != nil {
		return p.failed(refusal.Reason).because(refusal.code(), b.about(refusal, t)), refusal
	}
	return p, nil
}

// failed is the payment that failed, for a reason whose code [Payment.because] adds.
func (p Payment) failed(reason string) Payment {
	p.Status, p.Reason = Failed, reason
	return p
}

func (p Payment) because(code event.Code, about event.Parameters) Payment {
	p.ReasonCode, p.ReasonParameters = code, about
	return p
}
