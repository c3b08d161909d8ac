package driver_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/report"
)

// shop answers POST /orders, after it has called received with the order's id.
func shop(t *testing.T, received func(uuid.UUID)) *driver.Driver {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.Must(uuid.NewV7())
		received(id)
		w.Header().Set("Location", "/orders/"+id.String())
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"orderId":%q}`, id)
	}))
	d := driver.New([]string{srv.Listener.Addr().String()}, 1)
	t.Cleanup(func() { d.Close(); srv.Close() })
	return d
}

func TestClosedLoopWaitsForEachOrder(t *testing.T) {
	t.Parallel()
	const clients = 4
	var d *driver.Driver
	var mu sync.Mutex
	open, most := 0, 0
	var settling sync.WaitGroup
	d = shop(t, func(id uuid.UUID) {
		mu.Lock()
		open++
		most = max(most, open)
		mu.Unlock()
		settling.Go(func() {
			mu.Lock()
			open--
			mu.Unlock()
			d.Tracker.Settle([]uuid.UUID{id}, time.Now()) // before its answer, or after
		})
	})
	defer settling.Wait()
	w, err := d.Closed(t.Context(), clients, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Result
	r.Latencies(d.Tracker.Take(), w)
	if most > clients || r.Orders < clients || r.OrdersPerSecond == 0 || r.EndToEnd.P50 <= 0 {
		t.Errorf("%d orders, %d at once at most, %.0f/s, p50 %.3f ms; want several, %d at once at most", r.Orders, most, r.OrdersPerSecond, r.EndToEnd.P50, clients)
	}
}

func TestClosedLoopOfSoManyOrders(t *testing.T) {
	t.Parallel()
	var d *driver.Driver
	var told atomic.Int64
	d = shop(t, func(id uuid.UUID) { d.Tracker.Settle([]uuid.UUID{id}, time.Now()) })
	w, err := d.ClosedOrders(t.Context(), 3, 100, func(n int) { told.Add(int64(n)) })
	if err != nil {
		t.Fatal(err)
	}
	var r report.Result
	if r.Latencies(d.Tracker.Take(), w); r.Orders != 100 || r.OrdersPerSecond <= 0 || told.Load() != 100*101/2 {
		t.Errorf("%d orders, %.0f/s; want 100", r.Orders, r.OrdersPerSecond)
	}
}

// The shop answers nobody before the last order is in: an open loop sends it all the same, and the first order's
// latency counts from when it was due.
func TestOpenLoopDoesNotWait(t *testing.T) {
	t.Parallel()
	const n = 50
	length := 200 * time.Millisecond
	all := make(chan struct{})
	var came atomic.Int32
	var d *driver.Driver
	d = shop(t, func(id uuid.UUID) {
		if came.Add(1) == n {
			close(all)
		}
		<-all
		d.Tracker.Settle([]uuid.UUID{id}, time.Now())
	})
	if _, err := d.Open(t.Context(), driver.Evenly(n/length.Seconds(), length), length); err != nil {
		t.Fatal(err)
	}
	samples := d.Tracker.Take()
	slices.SortFunc(samples, func(a, b driver.Sample) int { return a.Sent.Compare(b.Sent) })
	if took := samples[0].Acked.Sub(samples[0].Sent); len(samples) != n || took < length*9/10 {
		t.Errorf("%d orders, the first acknowledged after %s; want %d, and after the last was due, %s later", len(samples), took, n, length)
	}
}

func TestFailuresAreCounted(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			http.Error(w, "no room", http.StatusServiceUnavailable)
		default:
			panic(http.ErrAbortHandler) // the connection closes: nobody knows
		}
	}))
	defer srv.Close()
	d := driver.New([]string{srv.Listener.Addr().String()}, 1)
	defer d.Close()
	if _, err := d.Open(t.Context(), driver.Evenly(20, 100*time.Millisecond), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	failures, _ := d.Failed()
	if failures != 2 || d.Tracker.Unknown != 1 || len(d.Tracker.Take()) != 0 {
		t.Errorf("%d failures, %d of them unknown; want 2, 1 of them unknown", failures, d.Tracker.Unknown)
	}
}
