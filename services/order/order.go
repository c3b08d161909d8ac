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

// An order begins PENDING and ends in one of the others, for ever.
const (
	Pending   Status = "PENDING"
	Confirmed Status = "CONFIRMED"
	Cancelled Status = "CANCELLED"
)

// Draft is an order as its user asks for it. The limits in the tags are the ones that the API describes and holds it to.
type Draft struct {
	UserID   string `json:"userId" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" patternDescription:"text of 1 to 128 characters without control characters" example:"u-1" doc:"who orders"`
	Items    []Item `json:"items" minItems:"1" maxItems:"100" nullable:"false" doc:"what is ordered; each product once"`
	Amount   int64  `json:"amount" minimum:"1" maximum:"1000000000000000" example:"4200" doc:"what is to be paid, in minor units"`
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
	CreatedAt time.Time `json:"createdAt"`
}

// Progress is the part of an order that events change.
type Progress struct {
	Status    Status     `json:"status" enum:"PENDING,CONFIRMED,CANCELLED"`
	Reason    string     `json:"reason,omitempty" doc:"why the order was cancelled"`
	History   []Entry    `json:"history" nullable:"false" doc:"what happened to the order, oldest first"`
	SettledAt *time.Time `json:"settledAt,omitempty" doc:"when the order became CONFIRMED or CANCELLED"`
}

// Entry is one line of an order's history.
type Entry struct {
	At     time.Time `json:"at" doc:"when this service learned of it"`
	Status Status    `json:"status" enum:"PENDING,CONFIRMED,CANCELLED" doc:"the order's status from then on"`
	Event  string    `json:"event" example:"payment.completed"`
	Detail string    `json:"detail,omitempty"`
}

// place accepts a draft. Times are kept as the database keeps them, in microseconds.
func place(id uuid.UUID, d Draft, at time.Time) Order {
	at = at.UTC().Truncate(time.Microsecond)
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

// news is what another service tells about an order.
type news struct {
	order  uuid.UUID
	event  string
	status Status // what the order becomes if it is PENDING; empty where it stays what it is
	detail string // the reason, of a cancellation
}

// after returns the progress after the news, in a history of its own, and what the news did.
//
// A terminal status is final: news that contradicts it is only noted. An event is told once in a history, so what comes
// again, even under another id, changes nothing.
func (p Progress) after(n news, at time.Time) (Progress, effect) {
	if slices.ContainsFunc(p.History, func(e Entry) bool { return e.Event == n.event }) {
		return p, ignored
	}
	at = at.UTC().Truncate(time.Microsecond)
	did := noted
	switch {
	case n.status == "" || n.status == p.Status:
	case p.Status == Pending:
		did = settled
		p.Status, p.SettledAt = n.status, &at
		if n.status == Cancelled {
			p.Reason = n.detail
		}
	default:
		did = contradicted
		n.detail = fmt.Sprintf("too late, the order is %s: %s", p.Status, n.detail)
	}
	p.History = append(slices.Clip(p.History), Entry{At: at, Status: p.Status, Event: n.event, Detail: n.detail})
	return p, did
}

// effect is what news did to an order.
type effect int

const (
	ignored      effect = iota // told before
	noted                      // a line of history
	settled                    // the order reached its terminal status
	contradicted               // noted, though it calls for the other terminal status
)
