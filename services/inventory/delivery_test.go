package inventory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// shuffled is a random delivery of records: each at least once and some more often, some as new messages about the
// same, in any order, in polls of any size.
func shuffled(rnd *rand.Rand, records []broker.Record, again func(broker.Record) broker.Record) [][]broker.Record {
	all := slices.Clone(records)
	for _, r := range records {
		for range rnd.IntN(3) {
			all = append(all, r)
		}
		if rnd.IntN(3) == 0 {
			all = append(all, again(r))
		}
	}
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var polls [][]broker.Record
	for len(all) > 0 {
		n := 1 + rnd.IntN(min(len(all), 20))
		polls = append(polls, all[:n])
		all = all[n:]
	}
	return polls
}

// However the messages come, stock and orders are what they are when each message comes once and in order. Where there
// is not enough for all, who gets it depends on who comes first, as it should, and the books balance.
func TestDeliveriesInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		stock int64
	}{{"plenty", 1000}, {"scarce", 12}} {
		for range 4 {
			seed := uint64(time.Now().UnixNano())
			t.Run(fmt.Sprintf("%s, seed %d", tt.name, seed), func(t *testing.T) {
				t.Parallel()
				stock := []Line{{"a", tt.stock}, {"b", tt.stock}}
				inOrder, anyhow := setup(t, stock...), setup(t, stock...)
				rnd := rand.New(rand.NewPCG(seed, 0))
				var records []broker.Record
				lines, failed := map[string][]Line{}, map[string]bool{}
				for n := range 25 {
					ls := []Line{{"a", 1 + rnd.Int64N(3)}, {"b", 1 + rnd.Int64N(3)}, {"a", 1}}[rnd.IntN(3):]
					lines[order(n).String()] = ls
					records = append(records, created(t, n, ls...))
					if rnd.IntN(3) == 0 {
						failed[order(n).String()] = true
						records = append(records, unpaid(t, n))
					}
				}
				again := func(r broker.Record) broker.Record {
					var n int
					if _, err := fmt.Sscanf(string(r.Key[24:]), "%d", &n); err != nil {
						t.Fatal(err)
					}
					if r.Topic == event.OrderCreated.Name() {
						return created(t, n, lines[string(r.Key)]...)
					}
					return unpaid(t, n)
				}

				for _, r := range records {
					inOrder.deliver(r)
				}
				anyhow.said(shuffled(rnd, records, again))

				anyhow.consistent()
				for _, r := range anyhow.reservations() {
					if r.Status == Reserved && failed[r.OrderID.String()] {
						t.Errorf("%s failed and holds %v", name(r.OrderID), r.Items)
					}
				}
				if tt.name == "scarce" {
					return
				}
				anyhow.want(inOrder.stock(), anyhow.stock())
				if diff := cmp.Diff(statuses(inOrder), statuses(anyhow)); diff != "" {
					t.Errorf("orders (-in order +anyhow):\n%s", diff)
				}
			})
		}
	}
}

func statuses(b bundle) map[string]Status {
	out := map[string]Status{}
	for _, r := range b.reservations() {
		out[name(r.OrderID)] = r.Status
	}
	return out
}

// said delivers polls and checks that all that is ever said of one thing about an order is the same.
func (b bundle) said(polls [][]broker.Record) {
	b.Helper()
	outcomes := map[string]string{}
	for _, poll := range polls {
		for _, r := range b.ofOrders(sagatest.Deliver(b.T, b.db, Choreography(), poll...)) {
			about := string(r.Key)
			if r.Topic == event.InventoryReleased.Name() {
				about += " released"
			}
			now := told(b.T, r)
			if was, ok := outcomes[about]; ok && was != now {
				b.Errorf("it said %q, and later %q", was, now)
			}
			outcomes[about] = now
		}
	}
}
