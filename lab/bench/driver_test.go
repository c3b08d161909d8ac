package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
)

// shop answers POST /orders, after it has called received with the order's id.
func shop(t *testing.T, received func(uuid.UUID)) *driver {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := uuid.Must(uuid.NewV7())
		received(id)
		w.Header().Set("Location", "/orders/"+id.String())
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"orderId":%q}`, id)
	}))
	d := newDriver([]string{srv.Listener.Addr().String()}, 1)
	t.Cleanup(func() { d.close(); srv.Close() })
	return d
}

func TestClosedLoopWaitsForEachOrder(t *testing.T) {
	t.Parallel()
	const clients = 4
	var d *driver
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
			d.tracker.settle([]uuid.UUID{id}, time.Now()) // before its answer, or after
		})
	})
	defer settling.Wait()
	w, err := d.closed(t.Context(), clients, 200*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	var r Result
	r.latencies(d.tracker.take(), w)
	if most > clients || r.Orders < clients || r.OrdersPerSecond == 0 || r.EndToEnd.P50 <= 0 {
		t.Errorf("%d orders, %d at once at most, %.0f/s, p50 %.3f ms; want several, %d at once at most", r.Orders, most, r.OrdersPerSecond, r.EndToEnd.P50, clients)
	}
}

func TestClosedLoopOfSoManyOrders(t *testing.T) {
	t.Parallel()
	var d *driver
	var told atomic.Int64
	d = shop(t, func(id uuid.UUID) { d.tracker.settle([]uuid.UUID{id}, time.Now()) })
	w, err := d.closedOrders(t.Context(), 3, 100, func(n int) { told.Add(int64(n)) })
	if err != nil {
		t.Fatal(err)
	}
	var r Result
	if r.latencies(d.tracker.take(), w); r.Orders != 100 || r.OrdersPerSecond <= 0 || told.Load() != 100*101/2 {
		t.Errorf("%d orders, %.0f/s; want 100", r.Orders, r.OrdersPerSecond)
	}
}

// The shop answers nobody before the last order is in: an open loop sends it all the same, and the first order's latency
// counts from when it was due.
func TestOpenLoopDoesNotWait(t *testing.T) {
	t.Parallel()
	const n = 50
	length := 200 * time.Millisecond
	all := make(chan struct{})
	var came atomic.Int32
	var d *driver
	d = shop(t, func(id uuid.UUID) {
		if came.Add(1) == n {
			close(all)
		}
		<-all
		d.tracker.settle([]uuid.UUID{id}, time.Now())
	})
	if _, err := d.open(t.Context(), evenly(n/length.Seconds(), length), length); err != nil {
		t.Fatal(err)
	}
	samples := d.tracker.take()
	slices.SortFunc(samples, func(a, b sample) int { return a.sent.Compare(b.sent) })
	if took := samples[0].acked.Sub(samples[0].sent); len(samples) != n || took < length*9/10 {
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
	d := newDriver([]string{srv.Listener.Addr().String()}, 1)
	defer d.close()
	if _, err := d.open(t.Context(), evenly(20, 100*time.Millisecond), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	failures, _ := d.failed()
	if failures != 2 || d.tracker.unknown != 1 || len(d.tracker.take()) != 0 {
		t.Errorf("%d failures, %d of them unknown; want 2, 1 of them unknown", failures, d.tracker.unknown)
	}
}

func TestTrackerMeetsEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	tr, start := newTracker(), time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	done := make(chan struct{}, 1)

	tr.settle(ids[:1], at(3)) // the event is seen before the answer
	tr.ack(ids[0], at(0), at(4), done)
	<-done
	tr.ack(ids[1], at(1), at(2), done)
	tr.settle(ids[1:2], at(5))
	<-done
	tr.settle(ids[:2], at(9)) // published again
	tr.ack(ids[2], at(2), at(3), nil)

	if acked, open := tr.counts(); acked != 3 || open != 1 {
		t.Errorf("%d acknowledged, %d open; want 3 and 1", acked, open)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if open := tr.drain(ctx, time.Minute); open != 1 {
		t.Errorf("%d left over, want 1", open)
	}
	want := []sample{{at(0), at(4), at(3)}, {at(1), at(2), at(5)}, {sent: at(2), acked: at(3)}}
	if got := tr.take(); !slices.Equal(got, want) {
		t.Errorf("samples %v, want %v", got, want)
	}
	if len(tr.early) != 0 {
		t.Errorf("%d events wait for an acknowledgement that was there", len(tr.early))
	}
}

func TestWireReadsAnswers(t *testing.T) {
	t.Parallel()
	id := uuid.New()
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		err     string
	}{
		{"accepted", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/orders/"+id.String())
			w.WriteHeader(http.StatusAccepted)
			fmt.Fprint(w, strings.Repeat("x", 2000))
		}, ""},
		{"accepted, and the connection closes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("Location", "/orders/"+id.String())
			w.WriteHeader(http.StatusAccepted)
		}, ""},
		{"refused", func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such user", http.StatusUnprocessableEntity)
		}, "422: no such user"},
		{"no Location", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }, "without a Location"},
		{"unknown length", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }, "length is not given"},
		{"cut off", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(tc.handler)
			defer srv.Close()
			c := newConn(srv.Listener.Addr().String())
			defer c.close()
			for range 3 { // on the same connection, or on a new one
				got, err := c.place([]byte(`{}`))
				switch {
				case tc.err == "" && (err != nil || got != id):
					t.Fatalf("got %s, %v; want %s", got, err, id)
				case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
					t.Fatalf("error %v; want one with %q", err, tc.err)
				}
			}
		})
	}
}

func TestSchedules(t *testing.T) {
	t.Parallel()
	if got := evenly(4, time.Second); !slices.Equal(got, []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond}) {
		t.Errorf("evenly: %v", got)
	}
	// Of a Poisson process, the number of orders and the variance of their distances are known.
	const rate, length = 1000.0, 100 * time.Second
	got := independently(rand.New(rand.NewPCG(1, 2)), rate, length)
	if n := float64(len(got)); n < 0.98*rate*length.Seconds() || n > 1.02*rate*length.Seconds() || !slices.IsSorted(got) || got[len(got)-1] >= length {
		t.Fatalf("%d orders until %s; want about %.0f, sorted, before %s", len(got), got[len(got)-1], rate*length.Seconds(), length)
	}
	var squares float64
	for i := 1; i < len(got); i++ {
		d := (got[i]-got[i-1]).Seconds()*rate - 1
		squares += d * d
	}
	if v := squares / float64(len(got)-1); v < 0.95 || v > 1.05 {
		t.Errorf("variance of the distances %.3f, want 1: they are not independent", v)
	}
}

func TestSleepUntilIsNotEarly(t *testing.T) {
	t.Parallel()
	due := time.Now().Add(3 * time.Millisecond)
	if sleepUntil(due); time.Now().Before(due) {
		t.Error("woke too early")
	}
}

func TestOrdersAreValidAndRepeatable(t *testing.T) {
	t.Parallel()
	o, again := newOrders(7, 1), newOrders(7, 1)
	for range 1000 {
		d := o.next()
		if d != again.next() {
			t.Fatal("the same seed made different orders")
		}
		if d.lines[0].product == d.lines[1].product || d.amount <= 0 {
			t.Fatalf("%+v: a product twice, or nothing to pay", d)
		}
	}
	const want = `{"userId":"user-3","items":[{"productId":"product-1","quantity":2},{"productId":"product-0","quantity":1}],"amount":50,"currency":"EUR"}`
	if got := string(draft{3, 50, [2]line{{1, 2}, {0, 1}}}.appendTo(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
