// Package event holds the contracts between the services: one file per service that produces, one topic per event, named
// after it. The key of every topic is the id of what it tells about: the order's, or the user's or product's where the event
// carries that one's state and a version, which tells what is newer when events overtake each other.
//
// Contracts only grow. A field may be added; consumers ignore those they do not know. To remove or change one, make a new
// topic. A missing required field is a message that no code can handle, which Validate says.
package event

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// Item is one line of an order.
type Item struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"` // units, at least 1
}

// require collects what is missing or out of range.
type require struct{ errs []error }

func (r *require) id(name string, id uuid.UUID) {
	r.that(id != uuid.Nil, name, "is missing")
}

func (r *require) text(name, s string) { r.that(s != "", name, "is missing") }

func (r *require) that(ok bool, name, problem string) {
	if !ok {
		r.errs = append(r.errs, fmt.Errorf("%s %s", name, problem))
	}
}

// money checks an amount in minor units and its ISO 4217 currency.
func (r *require) money(amount int64, currency string) {
	r.that(amount > 0, "amount", "is missing or not positive")
	r.that(len(currency) == 3, "currency", "is missing or not three letters")
}

func (r *require) err() error { return errors.Join(r.errs...) }
