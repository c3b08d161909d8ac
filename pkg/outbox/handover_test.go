package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// keyed is an outbox beside a table of keys, whose rows writers lock before they emit, as handlers lock their orders.
func keyed(t *testing.T, keys int) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, fmt.Sprint("outbox of ", keys), func(ctx context.Context, pool *pgxpool.Pool) error { return withKeys(ctx, pool, keys) })
}

// keyedAlone is keyed on a server of its own, where no other test's transactions are about.
func keyedAlone(t *testing.T, keys int) *pgxpool.Pool {
	t.Helper()
	db, err := pg.Open(t.Context(), pgtest.NewServer(t).URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := withKeys(t.Context(), db, keys); err != nil {
		t.Fatal(err)
	}
	return db
}

func withKeys(ctx context.Context, pool *pgxpool.Pool, keys int) error {
	if err := pg.Migrate(ctx, pool, outbox.Migration()); err != nil {
		return err
	}
	_, err := pool.Exec(ctx, `CREATE TABLE keys AS SELECT 'k' || k AS key, 0 AS n FROM generate_series(0, $1 - 1) AS k`, keys)
	return err
}

var errChanged = errors.New("changed its mind")

// hand commits the key's next event, a number, and hands it over to the relay; or takes all back.
func hand(ctx context.Context, db *pgxpool.Pool, r *outbox.Relay, topic, key string, commit bool) error {
	var handover *outbox.Handover
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `UPDATE keys SET n = n + 1 WHERE key = $1 RETURNING n - 1`, key).Scan(&n); err != nil {
			return err
		}
		var b pgx.Batch
		var err error
		if handover, err = r.Queue(&b, []outbox.Message{{Topic: topic, Key: []byte(key), Value: []byte(strconv.Itoa(n))}}); err != nil {
			return err
		}
		if commit {
			return pg.Defer(ctx, tx, &b)
		}
		return errors.Join(tx.SendBatch(ctx, &b).Close(), errChanged)
	})
	handover.Done(err == nil)
	if !commit && errors.Is(err, errChanged) {
		return nil
	}
	return err
}

// Two instances write the same keys in turns, now and then one takes back what it wrote, and each has a relay, of which
// one leads: every event arrives, per key in the order of the commits.
func TestHandedOverEventsKeepOrderPerKey(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		const keys, events = 8, 60
		db, cl, topic := keyed(t, keys), client(t, c), c.Topic(t, 3)
		relays := []*outbox.Relay{outbox.NewRelay(db, cl, outbox.Config{Batch: 50}), outbox.NewRelay(db, cl, outbox.Config{Batch: 50})}
		for _, r := range relays {
			start(t, r)
		}
		var writers sync.WaitGroup
		for k := range keys {
			for w := range relays {
				writers.Go(func() {
					for i := range events / len(relays) {
						if i%7 == 3 {
							if err := hand(t.Context(), db, relays[(i+w)%2], topic, fmt.Sprint("k", k), false); err != nil {
								t.Error(err)
							}
						}
						if err := hand(t.Context(), db, relays[(i/3+w)%2], topic, fmt.Sprint("k", k), true); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		writers.Wait()
		eventually(t, "the outbox is empty", empty(t, db))
		got := read(t, cl, topic)
		for k := range keys {
			if seen := firsts(got[fmt.Sprint("k", k)]); !slices.Equal(seen, counted(events)) {
				t.Errorf("key %d: %v", k, seen)
			}
		}
	})
}

// A relay that is alone on its database does not read back what it was handed.
func TestHandedOverEventsAreNotReadBack(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	db, cl, topic := keyedAlone(t, 1), client(t, c), c.Topic(t, 1)
	metrics := prometheus.NewPedanticRegistry()
	r := outbox.NewRelay(db, cl, outbox.Config{Metric: metrics})
	start(t, r)
	const events = 3000
	for range events {
		if err := hand(t.Context(), db, r, topic, "k0", true); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the outbox is empty", empty(t, db))
	if got := read(t, cl, topic)["k0"]; !slices.Equal(got, counted(events)) {
		t.Errorf("published %v", got)
	}
	if n := value(t, metrics, "converge_outbox_handed_over_total"); n < events*2/3 {
		t.Errorf("%v of %d events were taken from memory; want nearly all", n, events)
	}
}

func value(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// A producer that fails now and then, as Kafka does, costs neither an event nor its order.
func TestHandedOverEventsSurviveRefusals(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	db, cl, topic := keyed(t, 3), client(t, c), c.Topic(t, 2)
	p := &moody{Producer: cl}
	r := outbox.NewRelay(db, p, outbox.Config{})
	start(t, r)
	for i := range 200 {
		if err := hand(t.Context(), db, r, topic, fmt.Sprint("k", i%3), true); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the outbox is empty", empty(t, db))
	got := read(t, cl, topic)
	for k := range 3 {
		if seen := firsts(got[fmt.Sprint("k", k)]); !slices.Equal(seen, counted((200+2-k)/3)) {
			t.Errorf("key %d: %v", k, seen)
		}
	}
}

// moody refuses every third call, and of every second refusal has written all the same.
type moody struct {
	outbox.Producer
	calls int
}

func (m *moody) Produce(ctx context.Context, records []broker.Record) []error {
	m.calls++
	if m.calls%3 != 0 {
		return m.Producer.Produce(ctx, records)
	}
	if m.calls%6 == 0 {
		m.Producer.Produce(ctx, records)
	}
	errs := make([]error, len(records))
	for i := range errs {
		errs[i] = errors.New("not now")
	}
	return errs
}
