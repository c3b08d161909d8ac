// Package event holds the contracts between the services: one file per service that produces, one topic per event,
// named after it. The key of every topic is the id of what it tells about: the order's, or the user's or product's
// where the event carries that one's state and a version, which tells what is newer when events overtake each other.
//
// Contracts only grow, which sagatest.Golden holds. A field may be added; consumers ignore those they do not know. To
// remove or change one, declare a new version of the topic with [saga.Upcast]; docs/evolve.md has the steps. A missing
// required field is a message that no code can handle, which Validate says, and of a field whose zero is a value the
// tag.
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

// maxErrors bounds what is told of one event: a list of a million broken items is no million lines.
const maxErrors = 20

// require collects what is missing or out of range: the first maxErrors, and how many more there are.
type require struct {
	errs []error
	more int
}

func (r *require) id(name string, id uuid.UUID) {
	r.that(id != uuid.Nil, name, "is missing")
}

func (r *require) text(name, s string) { r.that(s != "", name, "is missing") }

func (r *require) that(ok bool, name, problem string) {
	switch {
	case ok:
	case len(r.errs) == maxErrors:
		r.more++
	default:
		r.errs = append(r.errs, fmt.Errorf("%s %s", name, problem))
	}
}

// item checks a part of the i-th item of a list. Its name is made only where it is needed.
func (r *require) item(ok bool, i int, name, problem string) {
	switch {
	case ok:
	case len(r.errs) == maxErrors:
		r.more++
	default:
		r.that(false, fmt.Sprintf("items[%d].%s", i, name), problem)
	}
}

// money checks an amount in minor units, of which 0 is one, and its ISO 4217 currency. That an amount is there is the
// tag's to say.
func (r *require) money(amount int64, currency string) {
	r.amount(amount)
	r.that(len(currency) == 3, "currency", "is missing or not three letters")
}

// currencyIfAny checks the currency of an event whose older ones have none.
func (r *require) currencyIfAny(currency string) {
	r.that(currency == "" || len(currency) == 3, "currency", "is not three letters")
}

func (r *require) amount(amount int64) { r.that(amount >= 0, "amount", "is negative") }

func (r *require) err() error {
	if r.more > 0 {
		return errors.Join(append(r.errs, fmt.Errorf("and %d more", r.more))...)
	}
	return errors.Join(r.errs...)
}
