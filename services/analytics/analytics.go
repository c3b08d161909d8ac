// Package analytics counts what happens: orders by state and hour, revenue, why orders are refused, how long they take,
// profiles that change.
//
//   - analytics.go, kinds.go: the rules, without I/O
//   - routes.go: the events it reacts to
//   - store*.go: every query; its schema is [migrations/analytics]
//   - http.go: the public API
//   - run.go: settings, and what runs
//
// [migrations/analytics]: https://github.com/converge-dev/converge/tree/main/migrations/analytics
package analytics

import (
	"cmp"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/event"
)

// Hour is what was ordered in one hour, by the time of the order.
type Hour struct {
	Hour      time.Time `json:"hour" doc:"when it begins, UTC"`
	Pending   int64     `json:"pending"`
	Confirmed int64     `json:"confirmed"`
	Cancelled int64     `json:"cancelled"`
}

// Revenue is what confirmed orders of one hour brought in, in one currency.
type Revenue struct {
	Hour     time.Time `json:"hour" doc:"when it begins, UTC"`
	Currency string    `json:"currency" example:"EUR"`
	Orders   int64     `json:"orders"`
	Amount   Sum       `json:"amount"`
}

// Sum is a sum of amounts in minor units, in decimal digits: of amounts of 64 bits it can have more.
type Sum string

// MarshalJSON writes a number. JSON's have any number of digits.
func (s Sum) MarshalJSON() ([]byte, error) { return []byte(s), nil }

// Schema describes it in the API.
func (Sum) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Description: "in minor units, exact: an integer that can be larger than 64 bits hold"}
}

// Refusals are orders that were refused for one reason. An order that somebody cancelled is not refused.
type Refusals struct {
	By     string `json:"by" enum:"inventory,payment"`
	Reason string `json:"reason" example:"out of stock: grinder" doc:"one of a few, by product where it is out of stock; other: any other"`
	Orders int64  `json:"orders"`

	Code event.Code `json:"code" db:"-" example:"out-of-stock" doc:"of the reason, as events have it; other: any other"`
}

// Times are how long something took for some orders. They compare the clocks of the machines that publish.
type Times struct {
	Orders int64   `json:"orders"`
	P50    float64 `json:"p50Ms" doc:"half of them took no longer, in milliseconds"`
	P90    float64 `json:"p90Ms"`
	P99    float64 `json:"p99Ms"`
	Max    float64 `json:"maxMs"`
}

// Durations are how long orders took until they settled, by how they did. One that is cancelled after it was confirmed
// had settled by then.
type Durations struct {
	State string `json:"state" enum:"CONFIRMED,CANCELLED"`
	Times
}

// Updates are changes of profiles in one hour.
type Updates struct {
	Hour    time.Time `json:"hour" doc:"when it begins, UTC"`
	Updates int64     `json:"updates"`
	Users   int64     `json:"users" doc:"how many users these are"`
}

// mostRefusals bounds a report.
const mostRefusals = 100

// refusals sums up rows by kind and code.
func refusals(rows []Refusals) []Refusals {
	type key struct{ by, kind string }
	counts := map[key]int64{}
	for _, r := range rows {
		if !ofCancelled(r.Reason) {
			counts[key{r.By, kindOf(r.Reason)}] += r.Orders
		}
	}
	out := make([]Refusals, 0, len(counts))
	for k, n := range counts {
		out = append(out, Refusals{By: k.by, Reason: k.kind, Orders: n, Code: codeOf(k.kind)})
	}
	slices.SortFunc(out, func(a, b Refusals) int {
		return cmp.Or(cmp.Compare(b.Orders, a.Orders), cmp.Compare(a.By, b.By), cmp.Compare(a.Reason, b.Reason))
	})
	return out[:min(len(out), mostRefusals)]
}
