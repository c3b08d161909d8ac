package web

import (
	"context"
	"net/http"
	"time"
)

// writeWithin is how long a client may take to accept what is written to it late.
const writeWithin = 10 * time.Second

// Outlast gives an operation that waits on purpose time of its own: the context that it returns ends after d, however
// long Config.Timeout is, or when the client goes away, and has the values of ctx. The answer may be written until
// writeWithin after that. ctx itself is not changed. The stop of the server bounds the answer as it does any other; who
// waits must see to it that the wait ends then.
//
// The time until cancel is called is left out of the request's duration in the metrics: a client that waits is not a
// slow service. Call it from the goroutine that serves the request, once. A ctx that is not of a request of [Server]
// only gets its end.
func Outlast(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithTimeout(context.WithoutCancel(ctx), d)
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok {
		follow := context.AfterFunc(ctx, cancel)
		return longer, func() { follow(); cancel() }
	}
	x.extend(d + writeWithin)
	began := time.Now()
	follow := context.AfterFunc(x.base, cancel)
	return longer, func() {
		x.waited = time.Since(began)
		follow()
		cancel()
	}
}

// extend lets the answer be written for so long from now on, or until the stop's end of writing, if that is sooner.
func (x *exchange) extend(d time.Duration) {
	x.all.mu.Lock()
	defer x.all.mu.Unlock()
	by := time.Now().Add(d)
	if stop := x.all.writeBy; !stop.IsZero() && stop.Before(by) {
		by = stop
	}
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(by) // as with setReadDeadline
}
