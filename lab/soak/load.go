package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// load is clients that place orders, and what they know of them.
type load struct {
	addrs   func(service string) []string
	clients int
	client  *http.Client
	run     string // makes keys this run's own

	mu        sync.Mutex
	rnd       *rand.Rand
	rate      float64
	due       time.Time // when the next order is to be placed
	requests  []*request
	transfers []*transfer
	open      map[*request]struct{} // those with a key that were not answered yet
	sum       counts
	wrong     []string // answers that no client should get
}

// counts is what the clients saw so far.
type counts struct {
	Placed    int `json:"placed"`
	Acked     int `json:"acknowledged"`
	Unknown   int `json:"unanswered"` // without a key, so nobody asked again
	Retries   int `json:"retries"`
	Refusals  int `json:"unavailable"` // answers of 503 and 409
	Cancels   int `json:"cancels"`     // acknowledged
	Transfers int `json:"transfers"`   // acknowledged
}

func newLoad(opts *Options, addrs func(service string) []string) *load {
	return &load{
		addrs: addrs, clients: opts.Clients, run: fmt.Sprintf("soak-%d-%d", opts.Seed, time.Now().UnixMilli()),
		client: &http.Client{
			Timeout:   10 * time.Second, // a service can be frozen
			Transport: &http.Transport{MaxIdleConnsPerHost: opts.Clients},
		},
		rnd: rand.New(rand.NewPCG(opts.Seed, 1)), rate: opts.Rate, open: map[*request]struct{}{},
	}
}

// place places orders until ctx ends; then it goes on with those that were not answered, until patience ends.
func (l *load) place(ctx, patience context.Context) {
	l.due = time.Now()
	var clients sync.WaitGroup
	for range l.clients {
		clients.Go(func() {
			for {
				r, ok := l.next(ctx)
				if !ok {
					return
				}
				l.carryOut(patience, r)
			}
		})
	}
	clients.Wait()
	l.client.CloseIdleConnections()
}

// next waits until another order is due.
func (l *load) next(ctx context.Context) (*request, bool) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.due) > time.Second { // all clients were held up: what was missed is not made up for
		l.due = now
	}
	at := l.due
	l.due = l.due.Add(time.Duration(float64(time.Second) / l.rate))
	l.mu.Unlock()
	pause(ctx, time.Until(at))
	if ctx.Err() != nil {
		return nil, false
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	r := newRequest(l.rnd, int64(len(l.requests)+1), l.run)
	r.sent = time.Now()
	l.requests = append(l.requests, r)
	if r.key != "" {
		l.open[r] = struct{}{}
	}
	l.sum.Placed++
	return r, true
}

func (l *load) setRate(rate float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// carryOut sends a request until it is answered, or once if it has no key.
func (l *load) carryOut(ctx context.Context, r *request) {
	l.untilLast(ctx, func(attempt int) bool {
		addrs := l.addrs("order")
		id, err := l.send(ctx, addrs[(int(r.n)+attempt)%len(addrs)], r)
		return l.note(r, id, err, attempt)
	})
	if r.key != "" && r.n%50 == 0 && ctx.Err() == nil { // a client that did not hear the answer
		if id, err := l.send(ctx, l.addrs("order")[0], r); err == nil && id != r.order {
			l.complain("request %d was answered with order %s and, sent again under its key, with %s", r.n, r.order, id)
		}
	}
	if victim := l.victim(r); victim != nil {
		l.cancel(ctx, victim)
	}
	if gift := l.gift(r); gift != nil {
		l.give(ctx, gift)
	}
}

// errAgain says that a request may be sent again.
var errAgain = errors.New("not now")

// send places the order and returns its id.
func (l *load) send(ctx context.Context, addr string, r *request) (uuid.UUID, error) {
	body, err := l.post(ctx, addr, "/orders", r.key, r.body(), http.StatusAccepted)
	if err != nil {
		return uuid.Nil, fmt.Errorf("request %d: %w", r.n, err)
	}
	var answer struct {
		OrderID uuid.UUID `json:"orderId"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.OrderID == uuid.Nil {
		return uuid.Nil, fmt.Errorf("request %d: 202 without an order's id: %q", r.n, body)
	}
	return answer.OrderID, nil
}

// untilLast makes attempts, at growing intervals, until one says that it was the last, or ctx ends.
func (l *load) untilLast(ctx context.Context, attempt func(n int) (last bool)) {
	wait := 20 * time.Millisecond
	for n := 0; !attempt(n) && ctx.Err() == nil; n++ {
		pause(ctx, wait)
		wait = min(2*wait, time.Second)
	}
}

// insist posts something that may be sent again until it is acknowledged, and tells whether it was.
func (l *load) insist(ctx context.Context, service, path string, body any, want int) (acked bool) {
	payload, err := json.Marshal(body)
	if err != nil {
		panic(err) // plain values
	}
	l.untilLast(ctx, func(attempt int) bool {
		addrs := l.addrs(service)
		_, err := l.post(ctx, addrs[attempt%len(addrs)], path, "", payload, want)
		if acked = err == nil; !acked && !errors.Is(err, errAgain) {
			l.complain("POST %s %s: %s", path, payload, err)
			return true
		}
		return acked
	})
	return acked
}

// post returns the body of the answer that is wanted, or errAgain, or what no client should get.
func (l *load) post(ctx context.Context, addr, path, key string, body []byte, want int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
		req.GetBody = nil // this client decides when to send again
	}
	res, err := l.client.Do(req)
	if err != nil {
		return nil, errAgain
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return nil, errAgain
	case res.StatusCode == http.StatusServiceUnavailable || res.StatusCode == http.StatusConflict && key != "":
		l.mu.Lock()
		l.sum.Refusals++
		l.mu.Unlock()
		return nil, errAgain
	case res.StatusCode != want:
		return nil, fmt.Errorf("%s: %s", res.Status, bytes.TrimSpace(answer))
	}
	return answer, nil
}

// note records an attempt, and tells whether it was the last.
func (l *load) note(r *request, id uuid.UUID, err error, attempt int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if attempt > 0 {
		l.sum.Retries++
	}
	switch {
	case err == nil:
		r.order, r.acked = id, time.Now()
		l.sum.Acked++
	case !errors.Is(err, errAgain):
		l.wrong = append(l.wrong, err.Error())
	case r.key == "":
		l.sum.Unknown++
	default:
		return false
	}
	delete(l.open, r)
	return true
}

func (l *load) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

func (l *load) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// known returns every request and transfer, and what was wrong with answers. The load has to be over.
func (l *load) known() (requests []*request, transfers []*transfer, unanswered int, wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, l.transfers, len(l.open), slices.Clone(l.wrong)
}
