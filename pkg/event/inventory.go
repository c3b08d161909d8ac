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

	ProductUpdated = saga.NewTopic[ProductUpdatedV1]("product.updated")
)

// InventoryReservedV1: every line of the order is reserved. It carries on what payment needs.
type InventoryReservedV1 struct {
	OrderID  uuid.UUID `json:"orderId"`
	UserID   string    `json:"userId"`
	Amount   int64     `json:"amount" saga:"required"` // minor units; 0: all of it costs nothing
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

// InventoryReservationFailedV1: no line of the order is reserved. Error names the product that there is not enough of,
// or the price.
type InventoryReservationFailedV1 struct {
	OrderID    uuid.UUID  `json:"orderId"`
	Error      string     `json:"error"`
	Code       Code       `json:"code"`
	Parameters Parameters `json:"parameters"`
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

// Stock tells whether there is anything left of a product. How much changes with every order, and is not told.
type Stock string

// A product is in stock while at least one unit can be reserved.
const (
	InStock Stock = "IN_STOCK"
	SoldOut Stock = "SOLD_OUT"
)

// ProductUpdatedV1: the product is so from this version on. Its key is the product's id.
type ProductUpdatedV1 struct {
	ProductID string `json:"productId"`
	Version   int64  `json:"version"`
	Name      string `json:"name"`
	Price     int64  `json:"price"` // of one unit, minor units; 0: it costs nothing
	Currency  string `json:"currency"`
	Stock     Stock  `json:"stock"`
}

// Validate tells what is missing.
func (e ProductUpdatedV1) Validate() error {
	var r require
	r.text("productId", e.ProductID)
	r.that(e.Version > 0, "version", "is missing or not positive")
	r.text("name", e.Name)
	r.that(e.Price >= 0, "price", "is negative")
	r.that(len(e.Currency) == 3, "currency", "is missing or not three letters")
	r.that(e.Stock == InStock || e.Stock == SoldOut, "stock", "is missing or neither IN_STOCK nor SOLD_OUT")
	return r.err()
}
