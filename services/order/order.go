// Package order takes orders over HTTP and settles them: an order begins PENDING, and becomes CONFIRMED or CANCELLED by
// what inventory and payment tell. Its user may cancel it; so does its deadline, if they tell nothing.
//
//   - order.go, progress.go: what an order is, and how events and requests change it; no I/O
//   - routes.go: the events it reacts to
//   - place.go, cancel.go, reconcile.go, expire.go: what changes orders by request and by deadline
//   - store.go: every query; its schema is [migrations/order]
//   - http.go, events.go, wait.go, waiters.go: the public API
//   - commands.go: the operator's commands
//   - run.go: settings, and what runs
//
// [migrations/order]: https://github.com/converge-dev/converge/tree/main/migrations/order
package order

import (
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
)

// Draft is an order as its user asks for it. The limits in the tags are the ones that the API describes and holds it
// to.
type Draft struct {
	UserID   string `json:"userId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"u-1" doc:"who orders"`
	Items    []Item `json:"items" minItems:"1" maxItems:"100" nullable:"false" doc:"what is ordered; each product once"`
	Amount   int64  `json:"amount" minimum:"0" maximum:"1000000000000000" example:"4200" doc:"what is to be paid, in minor units: what the items cost together, or inventory refuses the order"`
	Currency string `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"a currency of three capital letters, such as EUR" example:"EUR" doc:"ISO 4217"`
}

// Item is one line of an order.
type Item struct {
	ProductID string `json:"productId" pattern:"^[A-Za-z0-9._-]{1,64}$" patternDescription:"1 to 64 letters, digits, dots, dashes and underscores" example:"p-1"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000000" example:"2" doc:"units"`
}

// duplicate is a line whose product an earlier line, the first one of it, has already.
type duplicate struct{ line, first int }

func (d Draft) duplicates() []duplicate {
	var found []duplicate
	firsts := make(map[string]int, len(d.Items))
	for i, item := range d.Items {
		if first, ok := firsts[item.ProductID]; ok {
			found = append(found, duplicate{line: i, first: first})
		} else {
			firsts[item.ProductID] = i
		}
	}
	return found
}

// Order is a draft that was accepted, and what became of it.
type Order struct {
	ID uuid.UUID `json:"orderId"`
	Draft
	Progress
	Compensations []Compensation `json:"compensations,omitempty" doc:"what is or was undone for an order that is cancelled"`
	CreatedAt     time.Time      `json:"createdAt"`
}

// newOrder is a draft that is accepted.
func newOrder(id uuid.UUID, d Draft, at time.Time) Order {
	at = stamp(at)
	return Order{
		ID: id, Draft: d, CreatedAt: at,
		Progress: Progress{Status: Pending, History: []Entry{{At: at, Status: Pending, Event: event.OrderCreated.Name()}}},
	}
}

// created is the event that tells of a new order.
func (o *Order) created() event.OrderCreatedV1 {
	items := make([]event.Item, len(o.Items))
	for i, item := range o.Items {
		items[i] = event.Item(item)
	}
	return event.OrderCreatedV1{OrderID: o.ID, UserID: o.UserID, Items: items, Amount: o.Amount, Currency: o.Currency}
}
