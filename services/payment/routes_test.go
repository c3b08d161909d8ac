package payment

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func want[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChargeOrDecline(t *testing.T) {
	t.Parallel()
	b := setup(t)
	outs := b.deliver(reserved(t, 1, "u-1", 1000), reserved(t, 2, "u-1", 1001), reserved(t, 3, "mallory", 1))
	paid := b.payments()
	if v := paid[order(1)].ID.Version(); v != 7 {
		t.Errorf("the payment's id is a UUID of version %d, want 7", v)
	}
	want(t, []string{
		fmt.Sprintf("%s: paid 1000 with %s", order(1), paid[order(1)].ID),
		order(2).String() + ": amount 1001 is above the limit of 1000",
		order(3).String() + ": user mallory is declined",
	}, b.told(outs...))
	want(t, map[uuid.UUID]Payment{
		order(1): {order(1), paid[order(1)].ID, "u-1", 1000, "EUR", Completed, "", "", nil},
		order(2): {order(2), paid[order(2)].ID, "u-1", 1001, "EUR", Failed, "amount 1001 is above the limit of 1000", event.CodeDeclined, event.Parameters{"amount": "1001", "limit": "1000"}},
		order(3): {order(3), paid[order(3)].ID, "mallory", 1, "EUR", Failed, "user mallory is declined", event.CodeDeclined, event.Parameters{"userId": "mallory"}},
	}, paid)
}

// Whatever a repeated message says, and whatever the rule is by now, the outcome is the stored one: the same event.
func TestRepeatedOrderGetsItsStoredOutcome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.told(b.deliver(reserved(t, 1, "u-1", 1000), reserved(t, 2, "mallory", 5), reserved(t, 1, "u-1", 1000))...)
	want(t, first[0], first[2])
	before := b.payments()

	b.Rule = Rule{Above: 1}
	again := b.told(b.deliver(reserved(t, 2, "u-1", 1), reserved(t, 1, "mallory", 1000), reserved(t, 2, "mallory", 7))...)
	want(t, []string{first[1], first[0], first[1]}, again)
	want(t, before, b.payments())
}

// Instances that get the same orders at once, in any order, charge each once, and all say the same.
func TestInstancesChargeOnce(t *testing.T) {
	t.Parallel()
	const instances, orders = 8, 300
	b := setup(t)
	again := b.retries(instances, func(int) [][]broker.Record {
		var polls [][]broker.Record
		for _, n := range rand.Perm(orders) {
			if len(polls) == 0 || len(polls[len(polls)-1]) == 50 {
				polls = append(polls, nil)
			}
			last := &polls[len(polls)-1]
			*last = append(*last, reserved(t, n, fmt.Sprintf("u-%d", n%7), int64(900+n)))
		}
		return polls
	})
	if again != nil {
		t.Errorf("transactions were done again: %v", again)
	}
	said := map[string]int{}
	for _, r := range sagatest.Drain(t, b.db) {
		said[told(t, r)]++
	}
	paid := b.payments()
	if len(paid) != orders || len(said) != orders {
		t.Errorf("%d payments and %d different events, want %d", len(paid), len(said), orders)
	}
	for line, times := range said {
		if times != instances {
			t.Errorf("said %d times, want %d: %s", times, instances, line)
		}
	}
	b.audit()
}

// retries hands each of n instances, with a connection each, its polls at the same time, and tells whether transactions
// had to be done again.
func (b bundle) retries(n int, polls func(instance int) [][]broker.Record) error {
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
				if err := saga.Deliver(b.Context(), Choreography(b.Config), cfg, poll...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return testutil.GatherAndCompare(registry, strings.NewReader(""), "converge_consumer_retries_total")
}

// However the messages come, payments are what they are when each message comes once and in order.
func TestDeliveriesInAnyOrder(t *testing.T) {
	t.Parallel()
	for range 5 {
		seed := uint64(time.Now().UnixNano())
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 0))
			b := setup(t)
			expected := map[uuid.UUID]Payment{}
			var all []broker.Record
			for n := range 40 {
				user := []string{"u-1", "u-2", "mallory"}[rnd.IntN(3)]
				amount := 500 + rnd.Int64N(1000)
				e := event.InventoryReservedV1{OrderID: order(n), UserID: user, Amount: amount, Currency: "EUR"}
				expected[order(n)] = b.Rule.attempt(uuid.Nil, e)
				r := reserved(t, n, user, amount)
				all = append(all, r)
				for range rnd.IntN(3) {
					all = append(all, r)
				}
				for range rnd.IntN(2) {
					all = append(all, reserved(t, n, user, amount))
				}
			}
			rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })

			said := map[string]string{}
			for len(all) > 0 {
				n := 1 + rnd.IntN(min(len(all), 20))
				for _, r := range b.deliver(all[:n]...) {
					now := told(t, r)
					if was, ok := said[string(r.Key)]; ok && was != now {
						t.Errorf("said %q, and later %q", was, now)
					}
					said[string(r.Key)] = now
				}
				all = all[n:]
			}

			paid := b.payments()
			for id, p := range paid {
				p.ID = uuid.Nil
				paid[id] = p
			}
			want(t, expected, paid)
			b.audit()
			if len(said) != len(expected) {
				t.Errorf("spoke of %d orders, want %d", len(said), len(expected))
			}
		})
	}
}

// A batch's messages apply in order: what one charge leaves is what the next one finds, whatever rule or account
// refuses.
func TestChargesOfABatchApplyInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 1000
	usd := sagatest.Record(t, saga.New(t.Context(), event.InventoryReserved, order(5).String(),
		event.InventoryReservedV1{OrderID: order(5), UserID: "ada", Amount: 1, Currency: "USD"}))
	b.deliver(reserved(t, 9, "eve", 1))
	b.freeze("eve", true)
	got := b.told(b.deliver(
		reserved(t, 1, "ada", 700), reserved(t, 2, "ada", 301), reserved(t, 3, "ada", 300), reserved(t, 4, "ada", 1), usd,
		reserved(t, 6, "eve", 1), reserved(t, 7, "merchant.EUR", 1), reserved(t, 8, "external.EUR", 1))...)
	paid := b.payments()
	want(t, []string{
		fmt.Sprintf("%s: paid 700 with %s", order(1), paid[order(1)].ID),
		order(2).String() + ": insufficient balance: 301 wanted, 300 available",
		fmt.Sprintf("%s: paid 300 with %s", order(3), paid[order(3)].ID),
		order(4).String() + ": insufficient balance: 1 wanted, 0 available",
		fmt.Sprintf("%s: paid 1 with %s", order(5), paid[order(5)].ID),
		order(6).String() + ": account eve is frozen",
		order(7).String() + ": account merchant.EUR is not a user's",
		order(8).String() + ": account external.EUR is not a user's",
	}, got)
	want(t, []int64{0, 1001, -2000}, []int64{b.balance("ada"), b.balance("merchant.EUR"), b.balance("external.EUR")})
	b.audit()
}
