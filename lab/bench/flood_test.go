package bench

import (
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// Nothing settles before the last order is in: a flood sends it all the same, and its time goes on until all have settled.
func TestFloodCountsTheDrain(t *testing.T) {
	t.Parallel()
	const n = 100
	var mu sync.Mutex
	var ids []uuid.UUID
	var d *driver
	var settling sync.WaitGroup
	defer settling.Wait()
	var last time.Time
	d = shop(t, func(id uuid.UUID) {
		mu.Lock()
		defer mu.Unlock()
		if ids = append(ids, id); len(ids) == n {
			last = time.Now().Add(time.Second) // a drain of a second, by the driver's clock
			settling.Go(func() { d.tracker.settle(ids, last) })
		}
	})
	w, err := d.flood(t.Context(), Scenario{Kind: Flood, N: 8, Length: time.Minute, Orders: n})
	if err != nil {
		t.Fatal(err)
	}
	var r Result
	r.latencies(d.tracker.take(), w)
	if !w.to.Equal(last) || r.Orders != n || r.OrdersPerSecond > n || r.OrdersPerSecond < n/10 || r.Backlog < n-8 {
		t.Errorf("%d orders until %s, %.0f/s, backlog %d; want %d until %s, less than %[5]d/s", r.Orders, w.to, r.OrdersPerSecond, r.Backlog, n, last)
	}
}

func TestFloodEndsWithItsTime(t *testing.T) {
	t.Parallel()
	var d *driver
	d = shop(t, func(id uuid.UUID) { d.tracker.settle([]uuid.UUID{id}, time.Now()) })
	w, err := d.flood(t.Context(), Scenario{Kind: Flood, N: 2, Length: 50 * time.Millisecond})
	if n, _ := d.tracker.counts(); err != nil || n == 0 || w.seconds() > 5 {
		t.Errorf("%d orders in %.1f s, %v", n, w.seconds(), err)
	}
}

func TestBacklogPeak(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	got := backlogPeak([]sample{
		{at(0), at(1), at(4)}, {at(0), at(2), at(9)}, {at(0), at(4), at(6)}, // the third comes as the first goes
		{at(0), at(5), at(3)},       // settled before its answer: never waited
		{sent: at(0), acked: at(5)}, // never settled
		{at(8), at(10), at(11)},
	})
	if got != 3 {
		t.Errorf("backlog %d, want 3", got)
	}
}
