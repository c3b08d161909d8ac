// Package analytics counts what happens: orders by state and hour, revenue, why orders are refused, how long they take, profiles
// that change.
//
// Here are the rules, without I/O; routes.go says what the service reacts to, store.go holds the SQL, http.go the API.
package analytics

import (
	"regexp"
	"time"
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
	Amount   int64     `json:"amount" doc:"in minor units"`
}

// Refusals are orders that were refused for one reason.
type Refusals struct {
	By     string `json:"by" enum:"inventory,payment"`
	Reason string `json:"reason" example:"out of stock: grinder"`
	Orders int64  `json:"orders"`
}

// Durations are how long settled orders took from the order to its end. They compare the clocks of the machines that publish.
type Durations struct {
	State  string  `json:"state" enum:"CONFIRMED,CANCELLED"`
	Orders int64   `json:"orders"`
	P50    float64 `json:"p50Ms" doc:"half of them took no longer, in milliseconds"`
	P90    float64 `json:"p90Ms"`
	P99    float64 `json:"p99Ms"`
	Max    float64 `json:"maxMs"`
}

// Updates are changes of profiles in one hour.
type Updates struct {
	Hour    time.Time `json:"hour" doc:"when it begins, UTC"`
	Updates int64     `json:"updates"`
	Users   int64     `json:"users" doc:"how many users these are"`
}

// What is different in every refusal hides how many are alike.
var (
	numbers  = regexp.MustCompile(`\d+`)
	declined = regexp.MustCompile(`(?s)^user .* is declined$`)
	shortage = regexp.MustCompile(`(?s)^(out of stock: [A-Za-z0-9._-]{1,64}): .*$`)
	unknown  = regexp.MustCompile(`(?s)^unknown product: .*$`)
)

const longest = 100 // bytes of a reason that nobody here knows

// kindOf is what a reason has in common with others of its kind.
func kindOf(reason string) string {
	switch {
	case declined.MatchString(reason):
		return "user is declined"
	case unknown.MatchString(reason):
		return "unknown product"
	}
	if m := shortage.FindStringSubmatch(reason); m != nil {
		return m[1]
	}
	return numbers.ReplaceAllString(cut(reason), "N")
}

func cut(s string) string {
	for i := range s {
		if i > longest {
			return s[:i] + "..."
		}
	}
	return s
}
