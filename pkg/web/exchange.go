package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// What is read of a body after the answer, so that a client that sends all before it reads gets the answer and not a
// reset.
const (
	lingerTime  = 5 * time.Second
	lingerBytes = 16 << 20
)

// exchanges are the requests that are being served. They bound how long a client may hold a request up: net/http ends
// the reading of headers and body after Config.ReadTimeout, and the stop ends it sooner.
type exchanges struct {
	mu      sync.Mutex // guards all below and exchange.arrived; held for no I/O
	open    map[*exchange]struct{}
	readBy  time.Time // since the stop: until when bodies are read; zero before
	writeBy time.Time // since the stop: until when answers are written
}

// exchange is one request's body and its answer, for one goroutine. http.ResponseController reaches the connection
// through Unwrap.
type exchange struct {
	http.ResponseWriter
	all     *exchanges
	body    io.ReadCloser // the request's
	arrived bool          // the whole body; guarded by all.mu
	touched bool          // the body has been read from
	broken  bool          // reading it failed
	waits   bool          // the client sends the body when it is asked to
	until   time.Time     // the body's time
	status  int           // of the answer; 0: not begun

	base   context.Context // ends when the client goes away or the handler has returned
	waited time.Duration   // on purpose; see [Outlast]
}

type exchangeKey struct{} // of a request's exchange in its context

// begin takes a request in hand, until end.
func (e *exchanges) begin(w http.ResponseWriter, r *http.Request, readTimeout time.Duration) *exchange {
	x := &exchange{
		ResponseWriter: w, all: e, body: r.Body,
		arrived: r.Body == nil || r.Body == http.NoBody,
		waits:   strings.EqualFold(r.Header.Get("Expect"), "100-continue"),
		until:   time.Now().Add(readTimeout),
		base:    r.Context(),
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		e.open = map[*exchange]struct{}{}
	}
	e.open[x] = struct{}{}
	if x.arrived {
		x.setReadDeadline(time.Time{}) // the connection's own reader would take it for a client that went away
	}
	x.hurry()
	return x
}

// request is the request to serve with the exchange as its writer.
func (x *exchange) request(ctx context.Context, r *http.Request) *http.Request {
	r = r.WithContext(context.WithValue(ctx, exchangeKey{}, x))
	if x.body != nil && x.body != http.NoBody {
		r.Body = x
	}
	return r
}

// stop gives clients until these times, those of running requests and of later ones.
func (e *exchanges) stop(readBy, writeBy time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readBy, e.writeBy = readBy, writeBy
	for x := range e.open {
		x.hurry()
	}
}

func (e *exchanges) stopping() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.readBy.IsZero()
}

// hurry applies the stop's times, if it has begun. all.mu is held.
func (x *exchange) hurry() {
	if x.all.readBy.IsZero() {
		return
	}
	if !x.arrived {
		x.setReadDeadline(x.all.readBy)
	}
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(x.all.writeBy) // as with setReadDeadline
}

// setReadDeadline bounds reading. A writer without deadlines is a test's, which has no slow clients.
func (x *exchange) setReadDeadline(t time.Time) {
	_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(t)
}

// end finishes with the request. Unless the answer was cut off, what is missing of the body is read and dropped for a
// while: to close a connection with bytes unread resets it, and takes the answer with it.
func (x *exchange) end(cut bool) {
	x.all.mu.Lock()
	linger := !x.arrived && !x.broken && !cut && (x.touched || !x.waits)
	if linger && x.all.readBy.IsZero() {
		if by := time.Now().Add(lingerTime); by.Before(x.until) {
			x.setReadDeadline(by)
		}
	}
	x.all.mu.Unlock()
	if linger && x.status == 0 {
		x.WriteHeader(http.StatusOK) // a handler that wrote nothing
	}
	if linger && http.NewResponseController(x.ResponseWriter).Flush() == nil {
		_, _ = io.CopyN(io.Discard, x, lingerBytes) // whatever ends it, the answer is out
	}

	x.all.mu.Lock()
	defer x.all.mu.Unlock()
	delete(x.all.open, x)
	if !x.arrived {
		x.setReadDeadline(time.Unix(1, 0)) // net/http would go on reading
	}
}

// Read reads the request's body.
func (x *exchange) Read(p []byte) (int, error) {
	x.touched = true
	n, err := x.body.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		x.all.mu.Lock()
		if !x.arrived {
			x.arrived = true
			x.setReadDeadline(time.Time{})
		}
		x.all.mu.Unlock()
	default:
		x.broken = true
	}
	return n, err
}

// Close implements io.Closer for the request's body. The rest of it is read, or not, when the request ends.
func (x *exchange) Close() error { return nil }

// WriteHeader begins the answer. It closes the connection when the body has not arrived: net/http would wait for it
// first.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= 200 {
		x.status = status
		x.all.mu.Lock()
		if !x.arrived {
			x.Header().Set("Connection", "close")
		}
		x.all.mu.Unlock()
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	return x.ResponseWriter.Write(p)
}

func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }
