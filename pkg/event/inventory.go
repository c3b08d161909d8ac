package event

import (
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/saga"
)

// What inventory produces.
var (
	InventoryReserved          = saga.NewTopic[InventoryReservedV1]("inventory.reserved")
	InventoryReservationFailed = saga.NewTopic[InventoryReservationFailedV1]("inventory.reservation.failed")
	InventoryReleased          = saga.NewTopic[InventoryReleasedV1]("inventory.released")
)

// InventoryReservedV1: every line of the order is reserved. It carries on what payment needs.
type InventoryReservedV1 struct {
	OrderID  uuid.UUID `json:"orderId"`
	UserID   string    `json:"userId"`
	Amount   int64     `json:"amount"` // minor units
	Currency string    `json:"currency"`
}

// Validate tells what is missing.
func (e InventoryReservedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("userId", e.UserID)
	r.money(e.Amount, e.Currency)
	return r.err()
}

// InventoryReservationFailedV1: no line of the order is reserved. Error names the product that there is not enough of.
type InventoryReservationFailedV1 struct {
	OrderID uuid.UUID `json:"orderId"`
	Error   string    `json:"error"`
}

// Validate tells what is missing.
func (e InventoryReservationFailedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	r.text("error", e.Error)
	return r.err()
}

// InventoryReleasedV1: what was reserved for the order is available again.
type InventoryReleasedV1 struct {
	OrderID uuid.UUID `json:"orderId"`
}

// Validate tells what is missing.
func (e InventoryReleasedV1) Validate() error {
	var r require
	r.id("orderId", e.OrderID)
	return r.err()
}
