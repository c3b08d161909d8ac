package soak

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

const (
	plenty = 20            // products of which there is enough
	scarce = 5             // products that run out
	enough = 1_000_000_000 // units
	few    = 40
	users  = 50

	// declined is the user whose payments fail, by payment's own default.
	declined = "declined-user"
)

func plentyID(n int) string { return fmt.Sprintf("plenty-%d", n) }
func scarceID(n int) string { return fmt.Sprintf("scarce-%d", n) }

// stock is what is put in at the beginning.
func stock() map[string]int64 {
	units := map[string]int64{}
	for n := range plenty {
		units[plentyID(n)] = enough
	}
	for n := range scarce {
		units[scarceID(n)] = few
	}
	return units
}

type item struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
}

// request is an order as a client wants it. Its number is also its amount, so an order that was stored twice shows.
type request struct {
	n     int64
	key   string // empty: it is sent once, and without an answer nobody knows what came of it
	user  string
	items []item

	sent  time.Time
	acked time.Time
	order uuid.UUID // of the answer

	cancelled time.Time // when that was acknowledged, if it was asked for
}

// newRequest makes up the n-th order.
func newRequest(rnd *rand.Rand, n int64, run string) *request {
	r := &request{n: n, user: fmt.Sprintf("user-%d", rnd.IntN(users))}
	r.items = []item{{plentyID(rnd.IntN(plenty)), 1 + rnd.Int64N(3)}}
	switch p := rnd.IntN(100); {
	case p < 5:
		r.user = declined
	case p < 15:
		r.items = append(r.items, item{scarceID(rnd.IntN(scarce)), 1})
	case p < 50:
		if other := plentyID(rnd.IntN(plenty)); other != r.items[0].ProductID {
			r.items = append(r.items, item{other, 1})
		}
	}
	if rnd.IntN(4) > 0 {
		r.key = fmt.Sprintf("%s-%d", run, n)
	}
	return r
}

func (r *request) body() []byte {
	b, err := json.Marshal(map[string]any{"userId": r.user, "items": r.items, "amount": r.n, "currency": "EUR"})
	if err != nil {
		panic(err) // plain values
	}
	return b
}
