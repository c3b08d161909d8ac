package event

import (
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/saga"
)

// What payment produces.
var (
	PaymentCompleted = saga.NewTopic[PaymentCompletedV1]("payment.completed")
	PaymentFailed    = saga.NewTopic[PaymentFailedV1]("payment.failed")

	PaymentRefunded     = saga.NewTopic[PaymentRefundedV1]("payment.refunded")
	PaymentRefundFailed = saga.NewTopic[PaymentRefundFailedV1]("payment.refund.failed")
)

// PaymentCompletedV1: the order is paid.
type PaymentCompletedV1 struct {
	OrderID   uuid.UUID `json:"orderId"`
	PaymentID uuid.UUID `json:"paymentId"`
	Amount    int64     `json:"amount" saga:"required"` // minor units
	Currency  string    `json:"currency"`               // ISO 4217, the order's; empty in old events
}

// Validate tells what is missing.
func (e PaymentCompletedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.id("paymentId", e.PaymentID)
	r.amount(e.Amount)
	r.currencyIfAny(e.Currency)
	return r.err()
}

// PaymentFailedV1: the payment was refused, and nothing was charged.
type PaymentFailedV1 struct {
	OrderID    uuid.UUID  `json:"orderId"`
	Error      string     `json:"error"`
	Code       Code       `json:"code"`
	Parameters Parameters `json:"parameters"`
}

// Validate tells what is missing.
func (e PaymentFailedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("error", e.Error)
	return r.err()
}

// PaymentRefundedV1: what was paid for the order was paid back; final.
type PaymentRefundedV1 struct {
	OrderID   uuid.UUID `json:"orderId"`
	PaymentID uuid.UUID `json:"paymentId"`
	Amount    int64     `json:"amount" saga:"required"` // minor units
	Currency  string    `json:"currency"`               // ISO 4217, the payment's; empty in old events
}

// Validate tells what is missing.
func (e PaymentRefundedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.id("paymentId", e.PaymentID)
	r.amount(e.Amount)
	r.currencyIfAny(e.Currency)
	return r.err()
}

// PaymentRefundFailedV1: the order is to be paid back and cannot be yet. It is tried again until payment.refunded;
// whoever has something else to undo for the order need not wait for that.
type PaymentRefundFailedV1 struct {
	OrderID    uuid.UUID  `json:"orderId"`
	Error      string     `json:"error"`
	Code       Code       `json:"code"`
	Parameters Parameters `json:"parameters"`
}

// Validate tells what is missing.
func (e PaymentRefundFailedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("error", e.Error)
	return r.err()
}
