package driver_test

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/report"
)

// Nothing settles before the last order is in: a flood sends it all the same, and its time goes on until all have
// settled.
func TestFloodCountsTheDrain(t *testing.T) {
	t.Parallel()
	const n = 100
	var mu sync.Mutex
	var ids []uuid.UUID
	var d *driver.Driver
	var settling sync.WaitGroup
	defer settling.Wait()
	var last time.Time
	d = shop(t, func(id uuid.UUID) {
		mu.Lock()
		defer mu.Unlock()
		if ids = append(ids, id); len(ids) == n {
			last = time.Now().Add(time.Second) // a drain of a second, by the driver's clock
			settling.Go(func() { d.Tracker.Settle(ids, last) })
		}
	})
	w, err := d.Flood(t.Context(), 8, time.Minute, n)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Result
	r.Latencies(d.Tracker.Take(), w)
	if !w.To.Equal(last) || r.Orders != n || r.OrdersPerSecond > n || r.OrdersPerSecond < n/10 || r.Backlog < n-8 {
		t.Errorf("%d orders until %s, %.0f/s, backlog %d; want %d until %s, less than %[5]d/s", r.Orders, w.To, r.OrdersPerSecond, r.Backlog, n, last)
	}
}

func TestFloodEndsWithItsTime(t *testing.T) {
	t.Parallel()
	var d *driver.Driver
	d = shop(t, func(id uuid.UUID) { d.Tracker.Settle([]uuid.UUID{id}, time.Now()) })
	w, err := d.Flood(t.Context(), 2, 50*time.Millisecond, 0)
	if n, _ := d.Tracker.Counts(); err != nil || n == 0 || w.Seconds() > 5 {
		t.Errorf("%d orders in %.1f s, %v", n, w.Seconds(), err)
	}
}
