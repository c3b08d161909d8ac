package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// behind is how many requests ago an order was placed that is cancelled late: by then it has settled, unless something is broken.
const behind = 310

// victim is the order to cancel when a request is done with, if there is one: for one request in forty its own, which is
// cancelled in the middle of its saga, and for another an older one.
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
	body, err := json.Marshal(map[string]any{"userId": r.user, "reason": "changed my mind"})
	if err != nil {
		panic(err) // plain values
	}
	wait := 20 * time.Millisecond
	for attempt := 0; ; attempt++ {
		addrs := l.addrs("order")
		_, err := l.post(ctx, addrs[attempt%len(addrs)], "/orders/"+r.order.String()+"/cancel", "", body, http.StatusAccepted)
		switch {
		case err == nil:
			l.mu.Lock()
			r.cancelled = time.Now()
			l.sum.Cancels++
			l.mu.Unlock()
			return
		case !errors.Is(err, errAgain):
			l.complain("%s", fmt.Errorf("cancel order %s of request %d: %w", r.order, r.n, err))
			return
		case ctx.Err() != nil:
			return
		}
		pause(ctx, wait)
		wait = min(2*wait, time.Second)
	}
}
