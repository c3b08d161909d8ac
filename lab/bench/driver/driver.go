// Package driver is the load driver: it places orders over HTTP, as clients that wait or as an open loop, and notes
// when each was acknowledged and, from Kafka, when it settled.
package driver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
)

// SettleTimeout is how long none may settle before those under way count as stuck.
const SettleTimeout = 30 * time.Second

// FloodMost bounds what the driver has to remember of a flood.
const FloodMost = 200_000

const (
	openConns    = 128 // connections of the open loop
	failurePause = 50 * time.Millisecond
)

// Window is when a load began and when its last order was to be sent.
type Window struct{ From, To time.Time }

// Seconds is how long the window is.
func (w Window) Seconds() float64 { return w.To.Sub(w.From).Seconds() }

// Driver places orders and notes what becomes of them. It carries one load at a time.
type Driver struct {
	Tracker *Tracker

	addrs   []string // of the order service's instances
	seed    uint64
	conns   []*conn
	streams uint64

	mu       sync.Mutex
	failures int
	example  error
}

// New returns a driver for instances of the order service.
func New(addrs []string, seed uint64) *Driver {
	return &Driver{addrs: addrs, seed: seed, Tracker: newTracker()}
}

// Close closes the connections.
func (d *Driver) Close() {
	for _, c := range d.conns {
		c.close()
	}
}

// connect returns n connections, spread over the instances; those of an earlier load are used again.
func (d *Driver) connect(n int) []*conn {
	for len(d.conns) < n {
		d.conns = append(d.conns, newConn(d.addrs[len(d.conns)%len(d.addrs)]))
	}
	return d.conns[:n]
}

// stream makes the orders of one more client.
func (d *Driver) stream() workload.Orders {
	d.streams++
	return workload.NewOrders(d.seed, d.streams)
}

// fail notes a request that was not acknowledged.
func (d *Driver) fail(err error) {
	if refused := (*statusError)(nil); !errors.As(err, &refused) {
		d.Tracker.lost()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures++
	d.example = err
}

// Failed returns how many requests failed since the last call, and one of the errors.
func (d *Driver) Failed() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.failures, d.example
	d.failures, d.example = 0, nil
	return n, err
}

// Closed has clients place an order each, wait until it settles, and place the next, until the time is over. It
// returns when the last ones have settled.
func (d *Driver) Closed(ctx context.Context, clients int, length time.Duration) (Window, error) {
	from := time.Now()
	w := Window{from, from.Add(length)}
	return w, d.closedWhile(ctx, clients, func() bool { return time.Now().Before(w.To) })
}

// ClosedOrders is Closed for a number of orders, however long they take. It calls told with the number of each.
func (d *Driver) ClosedOrders(ctx context.Context, clients, n int, told func(placed int)) (Window, error) {
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
	return Window{from, time.Now()}, err
}

func (d *Driver) closedWhile(ctx context.Context, clients int, more func() bool) error {
	var running sync.WaitGroup
	for _, c := range d.connect(clients) {
		o := d.stream()
		running.Go(func() { d.client(ctx, c, o, more) })
	}
	running.Wait()
	return d.settled(ctx)
}

func (d *Driver) client(ctx context.Context, c *conn, o workload.Orders, more func() bool) {
	done := make(chan struct{}, 1)
	stuck := time.NewTimer(SettleTimeout)
	defer stuck.Stop()
	var body []byte
	for ctx.Err() == nil && more() {
		sent := time.Now()
		body = o.Next().AppendTo(body[:0])
		id, err := c.place(body)
		if err != nil {
			d.fail(err)
			rig.Pause(ctx, failurePause)
			continue
		}
		d.Tracker.Ack(id, sent, time.Now(), done)
		stuck.Reset(SettleTimeout)
		select {
		case <-done:
		case <-ctx.Done():
		case <-stuck.C:
			done = make(chan struct{}, 1)
		}
	}
}

// Flood has clients place the next order as soon as the last one is acknowledged, until the time is over, or for a
// number of orders above 0, however long they take. It returns when all have settled, and its window ends with the last
// of them: a backlog that is left to drain counts in full.
func (d *Driver) Flood(ctx context.Context, clients int, length time.Duration, orders int) (Window, error) {
	most := int64(FloodMost)
	if orders > 0 {
		most = int64(orders)
	}
	var placed atomic.Int64
	var running sync.WaitGroup
	from := time.Now()
	until := from.Add(length)
	for _, c := range d.connect(clients) {
		o := d.stream()
		running.Go(func() {
			var body []byte
			for ctx.Err() == nil && (orders > 0 || time.Now().Before(until)) && placed.Add(1) <= most {
				sent := time.Now()
				body = o.Next().AppendTo(body[:0])
				id, err := c.place(body)
				if err != nil {
					d.fail(err)
					rig.Pause(ctx, failurePause)
					continue
				}
				d.Tracker.Ack(id, sent, time.Now(), nil)
			}
		})
	}
	running.Wait()
	err := d.settled(ctx)
	return Window{from, d.Tracker.lastSettled(from)}, err
}

// Open places orders at their times, however long the others take, until the time is over, and returns when the last
// ones have settled. A request that has to wait for a connection is late, and its latency counts from when it was due.
func (d *Driver) Open(ctx context.Context, schedule []time.Duration, length time.Duration) (Window, error) {
	due := make(chan time.Time, len(schedule))
	var running sync.WaitGroup
	for _, c := range d.connect(openConns) {
		o := d.stream()
		running.Go(func() {
			var body []byte
			for sent := range due {
				body = o.Next().AppendTo(body[:0])
				id, err := c.place(body)
				if err != nil {
					d.fail(err)
					continue
				}
				d.Tracker.Ack(id, sent, time.Now(), nil)
			}
		})
	}
	from := time.Now()
	func() {
		defer close(due)
		runtime.LockOSThread() // SleepUntil blocks it
		defer runtime.UnlockOSThread()
		for _, at := range schedule {
			t := from.Add(at)
			SleepUntil(t)
			if ctx.Err() != nil {
				return
			}
			due <- t
		}
	}()
	running.Wait()
	return Window{from, from.Add(length)}, d.settled(ctx)
}

// settled waits for the orders that are under way.
func (d *Driver) settled(ctx context.Context) error {
	open := d.Tracker.Drain(ctx, SettleTimeout)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case open > 0:
		return fmt.Errorf("%d acknowledged orders have not settled, and none has for %s", open, SettleTimeout)
	}
	return nil
}
