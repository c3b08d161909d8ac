// Package inventory is the service that owns the stock. It reserves an order's items, all or none, and gives them back
// when the order fails or is cancelled.
//
//   - inventory.go, price.go, movements.go: the rules of reservations, prices and stock
//   - routes.go, availability.go: the events it reacts to, and what it tells of products
//   - store*.go: every query; its schema is [migrations/inventory]
//   - http*.go, products.go, quotes.go: the public API
//   - commands.go, repair.go: the operator's commands
//   - spans.go: the audit
//   - run.go: settings, and what runs
//
// [migrations/inventory]: https://github.com/converge-dev/converge/tree/main/migrations/inventory
package inventory

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/web"
)

// maxUnits bounds a product's stock, far from where sums of units overflow.
const maxUnits = 1_000_000_000_000

// productID is what a product's id looks like.
var productID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Line is a product and how many units of it.
type Line struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity" doc:"units"`
}

// Draft is what a product is set to.
type Draft struct {
	Name        string
	Description string // empty: none
	Price       int64  // of one unit, in minor units
	Currency    string
	Stock       int64 // units that a new product begins with; movements change them
}

// putVerdict is what becomes of a write of a product.
type putVerdict int

const (
	create   putVerdict = iota
	change              // it is there, and becomes what the draft says
	keep                // it is that already: this may be the same request once more
	conflict            // it is not what the writer takes it for
	blind               // the writer does not say what it replaces
	moves               // its stock is another than the draft's, and only movements change it
)

// judge decides about a write. Who creates needs no condition; who changes must say what, or would undo unseen what
// another has written. A condition is about what is replaced, name, description, price and currency: an order or a
// movement in between does not fail it. Who sends a request again, because its answer was lost, names the stock that
// the product began with, opening, or the one that it has.
func judge(now Product, exists bool, d Draft, said bool, opening int64, c web.Condition) putVerdict {
	same := now.Name == d.Name && now.Description == d.Description && now.Price == d.Price && now.Currency == d.Currency
	switch {
	case !exists && !c.Named:
		return create
	case !exists:
		return conflict
	case said && d.Stock != now.Stock && !(same && d.Stock == opening):
		return moves
	case c.Except.MatchWeak(now.etag()) && !(same && c.Except.Any):
		return conflict
	case same:
		return keep
	case !c.Named:
		return blind
	case c.Match.MatchFunc(func(etag string) bool { return strings.HasPrefix(etag, now.etagOfDraft()) }):
		return change
	}
	return conflict
}

// etag differs whenever the product does: in its version, or in when its units moved last. It begins with what stands
// for name, description, price and currency alone.
func (p Product) etag() string {
	return p.etagOfDraft() + strconv.FormatInt(p.Version, 36) + "-" + strconv.FormatInt(p.UpdatedAt.UnixMicro(), 36) + `"`
}

func (p Product) etagOfDraft() string {
	draft := fmt.Appendf(nil, "%d %s %s", p.Price, p.Currency, p.Name)
	if p.Description != "" { // without one it is the ETag that a process of an earlier version gives
		draft = fmt.Appendf(draft, "\x00%s", p.Description) // a name has no NUL
	}
	sum := sha256.Sum256(draft)
	return fmt.Sprintf(`"%x-`, sum[:8])
}

// Status of a reservation.
type Status string

// A reservation begins as RESERVED or REFUSED; a release makes the former RELEASED.
const (
	Reserved Status = "RESERVED"
	Refused  Status = "REFUSED"
	Released Status = "RELEASED"
)

// releasedFirst is the reason that refuses the reserve of an order whose release came before it.
const releasedFirst = "released before it was reserved"

// Reservation is what became of an order's attempt to reserve. Reason says why nothing was reserved; it is empty when
// the Items were, be they released since or not.
type Reservation struct {
	OrderID uuid.UUID `json:"orderId"`
	Status  Status    `json:"status" enum:"RESERVED,RELEASED,REFUSED"`
	Items   []Line    `json:"items" nullable:"false" doc:"what is or was reserved, each product once"`
	Reason  string    `json:"reason,omitempty" doc:"why nothing was reserved"`

	ReasonCode       event.Code       `json:"reasonCode,omitempty" example:"out-of-stock" doc:"the same for programs"`
	ReasonParameters event.Parameters `json:"reasonParameters,omitempty" doc:"what the code is about"`
}

// unitOfWork are the rows that a batch of messages works on, and what it changed in them. Messages apply one after the
// other, so a batch comes out as its messages would alone, in its order.
type unitOfWork struct {
	available    map[string]int64 // units, of the products that exist
	prices       map[string]Money // of one unit, of the same
	reservations map[uuid.UUID]Reservation

	moved    map[string]int64 // units from available to reserved, per product
	added    []uuid.UUID      // reservations that are new
	released []uuid.UUID      // reservations that were RESERVED
	retaken  []uuid.UUID      // reservations that were not, and are now
}

func newUnitOfWork() *unitOfWork {
	return &unitOfWork{available: map[string]int64{}, prices: map[string]Money{}, reservations: map[uuid.UUID]Reservation{}, moved: map[string]int64{}}
}

// reserve takes every line of the order or none, and returns the outcome: the stored one if the order has one. What is
// asked for the order has to be what its lines cost; nil is held to nothing. A product that is unknown or short is
// named before the price.
func (b *unitOfWork) reserve(order uuid.UUID, lines []Line, asked *Money) Reservation {
	if r, ok := b.reservations[order]; ok {
		return r
	}
	r := Reservation{OrderID: order, Status: Reserved, Items: merge(lines)}
	why := b.shortage(lines, r.Items)
	if why.text == "" && asked != nil {
		why = b.mismatch(lines, *asked)
	}
	if why.text != "" {
		r.Status, r.Items = Refused, []Line{}
		r.Reason, r.ReasonCode, r.ReasonParameters = why.text, why.code, why.parameters
	}
	b.move(r.Items, 1)
	b.reservations[order] = r
	b.added = append(b.added, order)
	return r
}

// reserveAgain takes every line for an order that should have them, whatever became of its own attempt, or says why
// not. It restores what was agreed on, whatever the products cost by now.
func (b *unitOfWork) reserveAgain(order uuid.UUID, lines []Line) (shortage string) {
	r := Reservation{OrderID: order, Status: Reserved, Items: merge(lines)}
	if shortage = b.shortage(lines, r.Items).text; shortage != "" {
		return shortage
	}
	if _, known := b.reservations[order]; known {
		b.retaken = append(b.retaken, order)
	} else {
		b.added = append(b.added, order)
	}
	b.move(r.Items, 1)
	b.reservations[order] = r
	return ""
}

// release gives back what the order holds, once. An order that is not known yet is marked, so that its reserve, which
// is late, is refused. One that was refused holds nothing, and stays refused.
func (b *unitOfWork) release(order uuid.UUID) {
	r, ok := b.reservations[order]
	switch {
	case !ok:
		r = Reservation{OrderID: order, Status: Released, Items: []Line{}, Reason: releasedFirst, ReasonCode: event.CodeOrderCancelled}
		b.added = append(b.added, order)
	case r.Status == Reserved:
		r.Status = Released
		b.move(r.Items, -1)
		b.released = append(b.released, order)
	}
	b.reservations[order] = r
}

// changedAvailability lists, by id, the products that the batch as a whole sold out or brought back in stock.
func (b *unitOfWork) changedAvailability() []string {
	var ids []string
	for id, units := range b.moved {
		if stockOf(b.available[id]+units) != stockOf(b.available[id]) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func stockOf(available int64) event.Stock {
	if available > 0 {
		return event.InStock
	}
	return event.SoldOut
}

func (b *unitOfWork) move(items []Line, sign int64) {
	for _, l := range items {
		b.available[l.ProductID] -= sign * l.Quantity
		b.moved[l.ProductID] += sign * l.Quantity
	}
}

// refusal is why nothing is reserved; without a text it is none.
type refusal struct {
	text       string
	code       event.Code
	parameters event.Parameters
}

// shortage names the first product of lines that there is not enough of, or nothing. items are the same lines, merged.
func (b *unitOfWork) shortage(lines, items []Line) refusal {
	wanted := make(map[string]int64, len(items))
	for _, l := range items {
		wanted[l.ProductID] = l.Quantity
	}
	for _, l := range lines {
		available, known := b.available[l.ProductID]
		switch {
		case !known:
			id := displayID(l.ProductID)
			return refusal{"unknown product: " + id, event.CodeUnknownProduct, event.Parameters{"productId": id}}
		case wanted[l.ProductID] > available:
			return refusal{
				fmt.Sprintf("out of stock: %s: %d wanted, %d available", l.ProductID, wanted[l.ProductID], available), event.CodeOutOfStock,
				event.Parameters{"productId": l.ProductID, "wanted": digits(wanted[l.ProductID]), "available": digits(available)},
			}
		}
	}
	return refusal{}
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }

// merge adds up the lines of each product and sorts them. A sum that overflows stays at the largest number, which no
// stock reaches.
func merge(lines []Line) []Line {
	sum := make(map[string]int64, len(lines))
	for _, l := range lines {
		if sum[l.ProductID] > math.MaxInt64-l.Quantity {
			sum[l.ProductID] = math.MaxInt64
			continue
		}
		sum[l.ProductID] += l.Quantity
	}
	items := make([]Line, 0, len(sum))
	for _, id := range slices.Sorted(maps.Keys(sum)) {
		items = append(items, Line{id, sum[id]})
	}
	return items
}

// displayID makes any text that came as a product's id fit to show and to store.
func displayID(id string) string {
	if productID.MatchString(id) {
		return id
	}
	return fmt.Sprintf("%.64q", id)
}
