package event

import (
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/saga"
)

// What order produces.
var (
	OrderCreated   = saga.NewTopic[OrderCreatedV1]("order.created")
	OrderConfirmed = saga.NewTopic[OrderConfirmedV1]("order.confirmed")
	OrderCancelled = saga.NewTopic[OrderCancelledV1]("order.cancelled")

	OrderCancelRequested = saga.NewTopic[OrderCancelRequestedV1]("order.cancel.requested")
)

// OrderCreatedV1: an order was accepted and is PENDING.
type OrderCreatedV1 struct {
	OrderID  uuid.UUID `json:"orderId"`
	UserID   string    `json:"userId"`
	Items    []Item    `json:"items"`
	Amount   int64     `json:"amount" saga:"required"` // minor units; 0: all of it costs nothing
	Currency string    `json:"currency"`
}

// Validate tells what is missing.
func (e OrderCreatedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("userId", e.UserID)
	r.that(len(e.Items) > 0, "items", "is missing or empty")
	for i, item := range e.Items {
		r.item(item.ProductID != "", i, "productId", "is missing")
		r.item(item.Quantity > 0, i, "quantity", "is missing or not positive")
	}
	r.money(e.Amount, e.Currency)
	return r.err()
}

// OrderConfirmedV1: stock is reserved and the payment completed. Final, unless the order's user cancels it: then
// order.cancelled follows.
type OrderConfirmedV1 struct {
	OrderID uuid.UUID `json:"orderId"`
}

// Validate tells what is missing.
func (e OrderConfirmedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	return r.err()
}

// OrderCancelledV1: the order will not be fulfilled; final.
type OrderCancelledV1 struct {
	OrderID    uuid.UUID  `json:"orderId"`
	Reason     string     `json:"reason"`
	Code       Code       `json:"code"`
	Parameters Parameters `json:"parameters"`
}

// Validate tells what is missing.
func (e OrderCancelledV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("reason", e.Reason)
	return r.err()
}

// OrderCancelRequestedV1: what was done for the order is to be undone. It may come before what it undoes.
type OrderCancelRequestedV1 struct {
	OrderID    uuid.UUID  `json:"orderId"`
	Reason     string     `json:"reason"`
	Code       Code       `json:"code"`
	Parameters Parameters `json:"parameters"`
}

// Validate tells what is missing.
func (e OrderCancelRequestedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("reason", e.Reason)
	return r.err()
}
