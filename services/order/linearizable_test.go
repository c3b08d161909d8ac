package order

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/testkit/sagatest"
)

// keyed is a POST /orders with an Idempotency-Key, and placed what it was answered.
type keyed struct{ key, request int }

type placed struct {
	status   int
	id       uuid.UUID
	replayed bool
}

// Requests with the same keys, from clients of two instances, are answered as if they had come one after the other: the
// first with a key places an order, the same request again gets the same order, and another request is refused.
func TestIdempotencyKeysAreLinearizable(t *testing.T) {
	t.Parallel()
	c := setup(t)
	instances := []client{c, serve(t, c.db)}
	type known [3]struct { // by key
		request int
		id      uuid.UUID
	}
	step := func(is known, in keyed, out placed) (known, bool) {
		at := &is[in.key]
		switch {
		case out.status == http.StatusConflict: // another is in progress; it may be over when this is answered
			return is, true
		case out.status == http.StatusUnprocessableEntity:
			return is, at.request != 0 && at.request != in.request
		case out.status == http.StatusAccepted && out.replayed:
			return is, at.request == in.request && at.id == out.id
		case out.status == http.StatusAccepted && at.request == 0:
			at.request, at.id = in.request, out.id
			return is, true
		}
		return is, false
	}
	sagatest.Linearizable(t, known{}, step, 6, func(i int, do func(in keyed, call func() placed) placed) {
		for range 10 {
			in := keyed{key: rand.IntN(3), request: 1 + rand.IntN(2)}
			do(in, func() placed {
				body := fmt.Sprintf(`{"userId":"u-1","items":[{"productId":"p-1","quantity":%d}],"amount":1,"currency":"EUR"}`, in.request)
				w := instances[i%2].post(body, fmt.Sprint("key-", in.key))
				out := placed{status: w.Code, replayed: w.Header().Get("Idempotency-Replayed") == "true"}
				if w.Code == http.StatusAccepted {
					out.id = parse[Order](t, w).ID
				}
				return out
			})
		}
	})
}
