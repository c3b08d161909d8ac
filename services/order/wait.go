package order

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

const (
	longestWait = 30 * time.Second // of one request, as the API describes it
	waitMargin  = 5 * time.Second  // for all that follows a wait
	beatEvery   = 15 * time.Second // of a stream
	streamFor   = 15 * time.Minute // then its client comes again and goes on from there
)

// typeTooManyWait is the type of the problem with one who wants to wait where ORDER_WAITERS do.
const typeTooManyWait = "too-many-waiting" // 503

func tooManyWait() error {
	return huma.ErrorWithHeaders(
		web.Problem(http.StatusServiceUnavailable, typeTooManyWait, "Too many are waiting", "no more requests may wait for orders at this moment; try again, or ask without waiting"),
		http.Header{"Retry-After": {"1"}})
}

// preferred is how long the lines of a Prefer header ask to wait, at most longestWait. What is no whole number of
// seconds is ignored, as every preference that a server does not understand.
func preferred(lines []string) time.Duration {
	value, _ := web.Preference(lines, "wait")
	if value == "" || strings.Trim(value, "0123456789") != "" {
		return 0
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds > int64(longestWait/time.Second) {
		return longestWait
	}
	return time.Duration(seconds) * time.Second
}

// expect waits for an order that is about to be placed. Where no more may wait it is nil: the preference is not applied
// then.
func (h *handlers) expect(o *Order) *waiter {
	w, err := h.waits.join(o.ID)
	if err == nil {
		w.notify(o.Progress)
	}
	return w
}

// expectEarlier waits for the order at the location that an earlier request was answered with. It is nil where that
// cannot be: the earlier answer will do.
func (h *handlers) expectEarlier(ctx context.Context, location string) (*Order, *waiter) {
	id, err := uuid.Parse(strings.TrimPrefix(location, "/orders/"))
	if err != nil {
		return nil, nil
	}
	w, err := h.waits.join(id)
	if err != nil {
		return nil, nil
	}
	o, ok, err := get(ctx, h.db, id)
	if err != nil || !ok {
		w.leave()
		return nil, nil
	}
	w.notify(o.Progress)
	return &o, w
}

// await makes o what it is when it has settled, when the time is over, or when the service stops. The error is the end
// of ctx, when the client goes away.
func (w *waiter) await(ctx context.Context, o *Order, until time.Time) error {
	ctx, cancel := web.Outlast(ctx, time.Until(until)+waitMargin)
	defer cancel()
	p, err := w.settled(ctx, until)
	if err == nil {
		o.Progress, o.Compensations = p, p.compensations()
	}
	return err
}

type getInput struct {
	ID   uuid.UUID `path:"id"`
	Wait string    `query:"wait" pattern:"^(([0-9]|[12][0-9]|30)s|([0-9]{1,4}|[12][0-9]{4}|30000)ms)$" patternDescription:"a time of at most 30s, such as 5s or 500ms" example:"5s" doc:"how long to wait for the order to settle, at most 30s; 0s: not at all"`
}

func (h *handlers) get(ctx context.Context, in *getInput) (*struct{ Body Order }, error) {
	wait, _ := time.ParseDuration(in.Wait) // its pattern is one; nothing is 0
	until := time.Now().Add(wait)
	var w *waiter
	var full error
	if wait > 0 {
		w, full = h.waits.join(in.ID) // before the order is read, so that no change is missed
		defer w.leave()
	}
	o, ok, err := get(ctx, h.db, in.ID)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case !ok:
		return nil, web.NotFound("there is no order %s", in.ID)
	case wait == 0 || o.SettledAt != nil:
		return &struct{ Body Order }{o}, nil
	case full != nil:
		return nil, tooManyWait()
	}
	w.notify(o.Progress)
	if err := w.await(ctx, &o, until); err != nil {
		return nil, err
	}
	return &struct{ Body Order }{o}, nil
}
