package order

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	lookEvery  = time.Second
	lookWithin = 5 * time.Second // one look, with the wait for a connection
)

// errTooManyWait says that no more may wait.
var errTooManyWait = errors.New("too many wait for orders")

// waiters are the requests that wait for what becomes of orders. None of them holds a connection or asks the database.
// They are woken by whoever commits a change in this process, who tells what the order has become, and by one look a
// second at all the orders that are waited for, which finds the changes of other instances.
//
// A change adds to an order's history and nothing takes from it. So of two states the one with the longer history is
// the later, in whatever order they are told. A change that is told to nobody, or whose teller dies, is found by the
// next look.
//
// A nil *waiters can be told changes, and lets nobody wait. It is safe for concurrent use.
type waiters struct {
	most    int           // at once
	every   time.Duration // between two looks
	stopped chan struct{} // closed when run has ended: nobody is told anything from then on

	mu    sync.Mutex // guards what follows and waiter.is; held for no I/O
	of    map[uuid.UUID]map[*waiter]struct{}
	count int
}

// waiter waits for one order, from join to leave. It is for one goroutine.
type waiter struct {
	all     *waiters
	order   uuid.UUID
	changed chan struct{} // holds one value when the order has changed since state was called
	is      Progress      // the latest that was told; guarded by all.mu
}

func newWaiters(most int) *waiters {
	return &waiters{most: most, every: lookEvery, stopped: make(chan struct{}), of: map[uuid.UUID]map[*waiter]struct{}{}}
}

// join adds a waiter for an order, who must leave. It is told of every change from now on, so a state that is read
// afterwards, and given to [waiter.tell], misses none. The error is errTooManyWait; a waiter that is nil may leave.
func (all *waiters) join(order uuid.UUID) (*waiter, error) {
	if all == nil {
		return nil, errTooManyWait
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.count >= all.most {
		return nil, errTooManyWait
	}
	all.count++
	w := &waiter{all: all, order: order, changed: make(chan struct{}, 1)}
	if all.of[order] == nil {
		all.of[order] = map[*waiter]struct{}{}
	}
	all.of[order][w] = struct{}{}
	return w, nil
}

// leave ends the wait. It may be called again.
func (w *waiter) leave() {
	if w == nil {
		return
	}
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if _, waits := w.all.of[w.order][w]; !waits {
		return
	}
	w.all.count--
	if delete(w.all.of[w.order], w); len(w.all.of[w.order]) == 0 {
		delete(w.all.of, w.order)
	}
}

// notify wakes those who wait for an order that is this now. Call it after the commit.
func (all *waiters) notify(order uuid.UUID, p Progress) {
	if all == nil {
		return
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	for w := range all.of[order] {
		w.update(p)
	}
}

// notifyChanged tells of the orders that have made progress.
func (all *waiters) notifyChanged(orders iter.Seq[*lockedOrder]) {
	for o := range orders {
		if o.changed {
			all.notify(o.id, o.Progress)
		}
	}
}

// notify has one waiter know a state that was read.
func (w *waiter) notify(p Progress) {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	w.update(p)
}

// update takes a state, unless it is known or older. all.mu is held.
func (w *waiter) update(p Progress) {
	if len(p.History) <= len(w.is.History) {
		return
	}
	w.is = p
	select {
	case w.changed <- struct{}{}:
	default: // it has not looked since the last change
	}
}

// state is the latest that is known.
func (w *waiter) state() Progress {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	return w.is
}

// settled returns the order's state when it has settled, or as it is when the time is over or the service stops. The
// error is that of ctx, if it ends first.
func (w *waiter) settled(ctx context.Context, until time.Time) (Progress, error) {
	over := time.NewTimer(time.Until(until))
	defer over.Stop()
	for {
		if p := w.state(); p.SettledAt != nil {
			return p, nil
		}
		select {
		case <-w.changed:
		case <-over.C:
			return w.state(), nil
		case <-w.all.stopped:
			return w.state(), nil
		case <-ctx.Done():
			return Progress{}, ctx.Err()
		}
	}
}

// run looks until ctx ends, and then sends all waiters home and returns nil. A look that fails is made up for by the
// next one; the log tells when that begins and when it is over.
func (all *waiters) run(ctx context.Context, db *pgxpool.Pool, log *slog.Logger) error {
	defer close(all.stopped)
	tick := time.NewTicker(all.every)
	defer tick.Stop()
	blind := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := all.look(ctx, db)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !blind:
			log.WarnContext(ctx, "those who wait for orders do not see what other instances change, trying again", "error", err)
		case err == nil && blind:
			log.InfoContext(ctx, "those who wait for orders see again what other instances change")
		}
		blind = err != nil
	}
}

// look tells all waiters what has become of their orders, with one statement. When nobody waits it asks nothing.
func (all *waiters) look(ctx context.Context, db *pgxpool.Pool) error {
	ids, lines := all.known()
	if len(ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	return progressSince(ctx, db, ids, lines, all.notify)
}

// known lists the orders that are waited for, and how long the history is that all waiters of each know.
func (all *waiters) known() (ids []uuid.UUID, lines []int) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for id, waiting := range all.of {
		least := -1
		for w := range waiting {
			if n := len(w.is.History); least < 0 || n < least {
				least = n
			}
		}
		ids, lines = append(ids, id), append(lines, least)
	}
	return ids, lines
}

// waiting is how many wait.
func (all *waiters) waiting() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.count
}

func (all *waiters) register(r prometheus.Registerer) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "converge_order_waiters", Help: "Requests that wait for what becomes of an order.",
	}, func() float64 { return float64(all.waiting()) }))
}
