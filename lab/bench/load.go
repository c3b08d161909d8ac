package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	settleTimeout = 30 * time.Second // when none settles for so long, those under way count as stuck
	openConns     = 128              // connections of the open loop
	failurePause  = 50 * time.Millisecond
)

// window is when a load began and when its last order was to be sent.
type window struct{ from, to time.Time }

func (w window) seconds() float64 { return w.to.Sub(w.from).Seconds() }

// driver places orders and notes what becomes of them.
type driver struct {
	addrs   []string // of the order service's instances
	seed    uint64
	tracker *tracker
	conns   []*conn
	streams uint64

	mu       sync.Mutex
	failures int
	example  error
}

func newDriver(addrs []string, seed uint64) *driver {
	return &driver{addrs: addrs, seed: seed, tracker: newTracker()}
}

func (d *driver) close() {
	for _, c := range d.conns {
		c.close()
	}
}

// connect returns n connections, spread over the instances; those of an earlier load are used again.
func (d *driver) connect(n int) []*conn {
	for len(d.conns) < n {
		d.conns = append(d.conns, newConn(d.addrs[len(d.conns)%len(d.addrs)]))
	}
	return d.conns[:n]
}

// stream makes the orders of one more client.
func (d *driver) stream() orders {
	d.streams++
	return newOrders(d.seed, d.streams)
}

// fail notes a request that was not acknowledged.
func (d *driver) fail(err error) {
	if refused := (*statusError)(nil); !errors.As(err, &refused) {
		d.tracker.lost()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	d.example = err
}

// failed returns how many requests failed since the last call, and one of the errors.
func (d *driver) failed() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.failures, d.example
	d.failures, d.example = 0, nil
	return n, err
}

// closed has clients place an order each, wait until it settles, and place the next, until the time is over. It
// returns when the last ones have settled.
func (d *driver) closed(ctx context.Context, clients int, length time.Duration) (window, error) {
	from := time.Now()
	w := window{from, from.Add(length)}
	return w, d.closedWhile(ctx, clients, func() bool { return time.Now().Before(w.to) })
}

// closedOrders is closed for a number of orders, however long they take. It calls told with the number of each.
func (d *driver) closedOrders(ctx context.Context, clients, n int, told func(placed int)) (window, error) {
	var placed atomic.Int64
	from := time.Now()
	err := d.closedWhile(ctx, clients, func() bool {
		i := placed.Add(1)
		if i > int64(n) {
			return false
		}
		told(int(i))
		return true
	})
	return window{from, time.Now()}, err
}

func (d *driver) closedWhile(ctx context.Context, clients int, more func() bool) error {
	var running sync.WaitGroup
	for _, c := range d.connect(clients) {
		o := d.stream()
		running.Go(func() { d.client(ctx, c, o, more) })
	}
	running.Wait()
	return d.settled(ctx)
}

func (d *driver) client(ctx context.Context, c *conn, o orders, more func() bool) {
	done := make(chan struct{}, 1)
	stuck := time.NewTimer(settleTimeout)
	defer stuck.Stop()
	var body []byte
	for ctx.Err() == nil && more() {
		sent := time.Now()
		body = o.next().appendTo(body[:0])
		id, err := c.place(body)
		if err != nil {
			d.fail(err)
			pause(ctx, failurePause)
			continue
		}
		d.tracker.ack(id, sent, time.Now(), done)
		stuck.Reset(settleTimeout)
		select {
		case <-done:
		case <-ctx.Done():
		case <-stuck.C:
			done = make(chan struct{}, 1)
		}
	}
}

// flood has clients place the next order as soon as the last one is acknowledged. It returns when all have settled, and
// its window ends with the last of them: a backlog that is left to drain counts in full.
func (d *driver) flood(ctx context.Context, sc Scenario) (window, error) {
	most := int64(floodMost)
	if sc.Orders > 0 {
		most = int64(sc.Orders)
	}
	var placed atomic.Int64
	var running sync.WaitGroup
	from := time.Now()
	until := from.Add(sc.Length)
	for _, c := range d.connect(int(sc.N)) {
		o := d.stream()
		running.Go(func() {
			var body []byte
			for ctx.Err() == nil && (sc.Orders > 0 || time.Now().Before(until)) && placed.Add(1) <= most {
				sent := time.Now()
				body = o.next().appendTo(body[:0])
				id, err := c.place(body)
				if err != nil {
					d.fail(err)
					pause(ctx, failurePause)
					continue
				}
				d.tracker.ack(id, sent, time.Now(), nil)
			}
		})
	}
	running.Wait()
	err := d.settled(ctx)
	return window{from, d.tracker.lastSettled(from)}, err
}

// open places orders at their times, however long the others take, until the time is over, and returns when the last
// ones have settled. A request that has to wait for a connection is late, and its latency counts from when it was due.
func (d *driver) open(ctx context.Context, schedule []time.Duration, length time.Duration) (window, error) {
	due := make(chan time.Time, len(schedule))
	var running sync.WaitGroup
	for _, c := range d.connect(openConns) {
		o := d.stream()
		running.Go(func() {
			var body []byte
			for sent := range due {
				body = o.next().appendTo(body[:0])
				id, err := c.place(body)
				if err != nil {
					d.fail(err)
					continue
				}
				d.tracker.ack(id, sent, time.Now(), nil)
			}
		})
	}
	from := time.Now()
	func() {
		defer close(due)
		runtime.LockOSThread() // sleepUntil blocks it
		defer runtime.UnlockOSThread()
		for _, at := range schedule {
			t := from.Add(at)
			sleepUntil(t)
			if ctx.Err() != nil {
				return
			}
			due <- t
		}
	}()
	running.Wait()
	return window{from, from.Add(length)}, d.settled(ctx)
}

// settled waits for the orders that are under way.
func (d *driver) settled(ctx context.Context) error {
	open := d.tracker.drain(ctx, settleTimeout)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case open > 0:
		return fmt.Errorf("%d acknowledged orders have not settled, and none has for %s", open, settleTimeout)
	}
	return nil
}

// evenly spreads orders at the rate per second over length.
func evenly(rate float64, length time.Duration) []time.Duration {
	schedule := make([]time.Duration, int(rate*length.Seconds()))
	for i := range schedule {
		schedule[i] = time.Duration(float64(i) / rate * float64(time.Second))
	}
	return schedule
}

// independently is a Poisson process: orders of many users who know nothing of each other.
func independently(rnd *rand.Rand, rate float64, length time.Duration) []time.Duration {
	var schedule []time.Duration
	at := 0.0
	for {
		at += rnd.ExpFloat64() / rate
		if at >= length.Seconds() {
			return schedule
		}
		schedule = append(schedule, time.Duration(at*float64(time.Second)))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
