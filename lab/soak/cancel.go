package soak

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// behind is how many requests ago an order was placed that is cancelled late: by then it has settled, unless something
// is broken.
const behind = 310

// victim is the order to cancel when a request is done with, if there is one: for one request in forty its own, which
// is cancelled in the middle of its saga, and for another an older one.
func (l *load) victim(r *request) *request {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.n%40 == 11:
	case r.n%40 == 31 && r.n > behind:
		r = l.requests[r.n-behind-1]
	default:
		return nil
	}
	if r.order == uuid.Nil {
		return nil
	}
	return r
}

// cancel asks for the cancellation of an order until that is acknowledged.
func (l *load) cancel(ctx context.Context, r *request) {
	body := map[string]any{"userId": r.user, "reason": "changed my mind"}
	if l.insist(ctx, "order", "/orders/"+r.order.String()+"/cancel", body, http.StatusAccepted) {
		l.mu.Lock()
		defer l.mu.Unlock()
		r.cancelled = time.Now()
		l.sum.Cancels++
	}
}
