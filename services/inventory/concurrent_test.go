package inventory

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// instances runs n instances of the service at once, each of which handles its polls one after the other, and fails the
// test if any transaction had to be done again: by a deadlock, or whatever else.
func (b bundle) instances(n int, polls func(instance int) [][]broker.Record) {
	b.Helper()
	pool, err := pg.Open(b.Context(), b.db.Config().ConnString(), pg.MaxConns(n))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(pool.Close)
	registry := prometheus.NewRegistry()
	cfg := saga.Config{DB: pool, Metrics: saga.NewMetrics(registry)}
	var g errgroup.Group
	for i := range n {
		work := polls(i)
		g.Go(func() error {
			for _, poll := range work {
				if err := saga.Deliver(b.Context(), Choreography(), cfg, poll...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(""), "converge_consumer_retries_total"); err != nil {
		b.Errorf("transactions were done again: %v", err)
	}
}

func TestHotProductFromManyInstances(t *testing.T) {
	t.Parallel()
	const instances, polls, size, quantity, stock = 8, 5, 25, 3, 1000
	b := setup(t, Line{"hot", stock})
	b.instances(instances, func(instance int) [][]broker.Record {
		work := make([][]broker.Record, polls)
		for i := range work {
			for j := range size {
				work[i] = append(work[i], created(t, (instance*polls+i)*size+j, Line{"hot", quantity}))
			}
		}
		return work
	})
	said := map[string]int{}
	for _, r := range b.ofOrders(sagatest.Drain(t, b.db)) {
		said[r.Topic]++
	}
	want := map[string]int{
		event.InventoryReserved.Name():          stock / quantity,
		event.InventoryReservationFailed.Name(): instances*polls*size - stock/quantity,
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	b.want([]string{"hot: 1+999"}, b.stock())
	b.consistent()
}

// Polls that reserve and release at once, with the same products and orders in any order, never deadlock.
func TestLocksAreTakenInOneOrder(t *testing.T) {
	t.Parallel()
	const instances, polls, size, known = 8, 12, 20, 40
	products := []Line{{"a", 1e6}, {"b", 1e6}, {"c", 1e6}, {"d", 1e6}, {"e", 1e6}}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	two := func(rnd *rand.Rand) []Line {
		return []Line{{products[rnd.IntN(5)].ProductID, 1}, {products[rnd.IntN(5)].ProductID, 1}}
	}
	b := setup(t, products...)
	rnd := rand.New(rand.NewPCG(seed, instances))
	var first []broker.Record
	for n := range known {
		first = append(first, created(t, n, two(rnd)...))
	}
	b.deliver(first...)

	b.instances(instances, func(instance int) [][]broker.Record {
		rnd := rand.New(rand.NewPCG(seed, uint64(instance)))
		work := make([][]broker.Record, polls)
		for i := range work {
			for j := range size {
				r := created(t, known+(instance*polls+i)*size+j, two(rnd)...)
				switch rnd.IntN(4) {
				case 0:
					r = created(t, rnd.IntN(known), two(rnd)...)
				case 1:
					r = unpaid(t, rnd.IntN(known))
				}
				work[i] = append(work[i], r)
			}
		}
		return work
	})
	b.consistent()
}

// Polls that call for releases for several reasons, and reserve, on several instances: two of them may wait for each
// other, which PostgreSQL ends, and all comes out as if they had not met.
func TestReleasesOfSeveralTopics(t *testing.T) {
	t.Parallel()
	const instances, polls, size, orders = 4, 6, 12, 60
	b := setup(t, Line{"a", 1e6}, Line{"b", 1e6}, Line{"c", 1e6})
	lines := func(n int) []Line { return []Line{{string(rune('a' + n%3)), 1}, {string(rune('a' + (n+1)%3)), 1}} }
	pool, err := pg.Open(t.Context(), b.db.Config().ConnString(), pg.MaxConns(instances))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	registry := prometheus.NewRegistry()
	cfg := saga.Config{DB: pool, Metrics: saga.NewMetrics(registry), Backoff: time.Millisecond}
	released := make([]map[int]bool, instances)
	var g errgroup.Group
	for i := range instances {
		rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
		released[i] = map[int]bool{}
		g.Go(func() error {
			for range polls {
				var poll []broker.Record
				for range size {
					n := rnd.IntN(orders)
					if rnd.IntN(3) == 0 {
						poll = append(poll, created(t, n, lines(n)...))
						continue
					}
					poll = append(poll, unneeded(t, n, rnd.IntN(reasons)))
					released[i][n] = true
				}
				if err := saga.Deliver(t.Context(), Choreography(), cfg, poll...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.reservations() {
		for n := range orders {
			if r.OrderID == order(n) && r.Status == Reserved && slices.ContainsFunc(released, func(of map[int]bool) bool { return of[n] }) {
				t.Errorf("%s was released and holds %v", name(r.OrderID), r.Items)
			}
		}
	}
	for _, r := range sagatest.Drain(t, b.db) {
		if strings.HasSuffix(r.Topic, ".dlq") {
			t.Errorf("a dead letter: %s", told(t, r))
		}
	}
	b.consistent()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "converge_consumer_retries_total" {
			t.Logf("done again: %v", f.GetMetric())
		}
	}
}

// An order's first reserve and its release at the same moment: one of them wins, and both see who.
func TestReserveAndReleaseRace(t *testing.T) {
	t.Parallel()
	const orders = 40
	b := setup(t, Line{"tea", 1000})
	cfg := saga.Config{DB: b.db, Backoff: time.Millisecond}
	var g errgroup.Group
	for n := range orders {
		for _, r := range []broker.Record{created(t, n, Line{"tea", 1}), unpaid(t, n)} {
			g.Go(func() error { return saga.Deliver(t.Context(), Choreography(), cfg, r) })
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for _, r := range b.ofOrders(sagatest.Drain(t, b.db)) {
		said[string(r.Key)] = append(said[string(r.Key)], r.Topic)
	}
	for _, r := range b.reservations() {
		want := []string{event.InventoryReleased.Name(), event.InventoryReserved.Name()}
		if r.Reason != "" {
			want[1] = event.InventoryReservationFailed.Name()
		}
		got := said[r.OrderID.String()]
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || r.Status != Released {
			t.Errorf("%s: %s for %q, and said %v", name(r.OrderID), r.Status, r.Reason, got)
		}
	}
	b.want([]string{"tea: 1000+0"}, b.stock())
	b.consistent()
}
