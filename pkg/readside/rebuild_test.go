package readside_test

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

//go:embed testdata/*.sql
var schema embed.FS

type thingV1 struct {
	Version int64 `json:"version"`
}

// bundle is a read side that keeps the newest version of each key, with a database and topics of its own.
type bundle struct {
	*testing.T
	db     *pgxpool.Pool
	client *broker.Client
	topics [2]saga.Topic[thingV1]
	side   readside.Side
	gate   atomic.Pointer[func(ctx context.Context, to readside.Target) error] // what a handler meets before it writes
}

func setup(t *testing.T) *bundle {
	t.Helper()
	cluster := brokertest.Kafka(t)
	client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := &bundle{T: t, client: client, db: pgtest.New(t, "things", sagatest.Migrate(readside.Migration(), pg.Migration{Name: "things", FS: pg.Dir(schema, "testdata")}))}
	for i := range b.topics {
		b.topics[i] = saga.NewTopic[thingV1](cluster.Topic(t, 3))
	}
	b.side = readside.Side{Name: brokertest.Name(t), Tables: []string{"things"}, Routes: func(to readside.Target) []saga.Route {
		return []saga.Route{saga.OnBatch(b.topics[0], b.keep(to)), saga.OnBatch(b.topics[1], b.keep(to))}
	}}
	return b
}

func (b *bundle) keep(to readside.Target) func(context.Context, pgx.Tx, []saga.Msg[thingV1]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[thingV1]) ([]saga.Out, error) {
		if gate := b.gate.Load(); gate != nil {
			if err := (*gate)(ctx, to); err != nil {
				return nil, err
			}
		}
		newest := map[string]int64{}
		for _, m := range msgs {
			if m.Data.Version < 0 {
				return nil, errors.New("nothing that code can handle")
			}
			newest[m.Key] = max(newest[m.Key], m.Data.Version)
		}
		for _, key := range slices.Sorted(maps.Keys(newest)) {
			if _, err := tx.Exec(ctx, `INSERT INTO things AS old (generation, key, version) SELECT g, $2, $3 FROM generations_of($1) g
ON CONFLICT (generation, key) DO UPDATE SET version = excluded.version WHERE old.version < excluded.version`, int64(to), key, newest[key]); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

// tell publishes versions of keys to one of the topics.
func (b *bundle) tell(topic int, records ...broker.Record) {
	b.Helper()
	for i := range records {
		records[i].Topic = b.topics[topic].Name()
	}
	b.eventually("the records are taken", func() bool {
		var failed []broker.Record // such as those of a topic that was made a moment ago
		for i, err := range b.client.Produce(b.Context(), records) {
			if err != nil {
				failed = append(failed, records[i])
			}
		}
		records = failed
		return len(failed) == 0
	})
}

func (b *bundle) thing(key string, version int64) broker.Record {
	b.Helper()
	r, err := saga.Encode("test", saga.New(b.Context(), b.topics[0], key, thingV1{version}))
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// live consumes, as the running service does, until the test ends.
func (b *bundle) live() {
	b.Helper()
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(b.Context())
	running.Go(func() {
		if err := saga.Run(ctx, b.side.Service(), saga.Config{DB: b.db, Broker: b.client, Backoff: time.Millisecond, Attempts: 1}); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() { stop(); running.Wait() })
}

// rebuilder runs what goes on behind the requests until stop is called, or the test ends.
func (b *bundle) rebuilder() (r *readside.Rebuilder, stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	stop = func() { cancel(); running.Wait() }
	b.Cleanup(stop)
	return &readside.Rebuilder{Side: b.side, DB: b.db, Broker: b.client, Log: slog.New(slog.DiscardHandler), Go: func(fn func(context.Context) error) {
		running.Go(func() {
			if err := fn(ctx); err != nil {
				b.Error(err)
			}
		})
	}}, stop
}

// generations shows the states of all, the oldest first.
func (b *bundle) generations() string {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT state FROM generations ORDER BY id`)
	states, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.Fatal(err)
	}
	return strings.Join(states, " ")
}

// things shows what serves, and how many rows there are in all.
func (b *bundle) things() (map[string]int64, int) {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT key, version, generation = serving_generation() FROM things`)
	serving, all := map[string]int64{}, 0
	var key string
	var version int64
	var serves bool
	if _, err := pgx.ForEachRow(rows, []any{&key, &version, &serves}, func() error {
		if all++; serves {
			serving[key] = version
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return serving, all
}

func (b *bundle) eventually(what string, check func() bool) {
	b.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		select {
		case <-tick.C:
		case <-deadline.C:
			b.Fatalf("not within a minute: %s (generations: %s)", what, b.generations())
		}
	}
}

func (b *bundle) serves(want map[string]int64) {
	b.Helper()
	b.eventually("what was told is served", func() bool { got, _ := b.things(); return cmp.Equal(want, got) })
}

// A rebuild comes to what the group has come to, and to what is told while it goes on; rows that should not be are
// gone, and so is the generation before it. What no code can handle does not stop it.
func TestRebuild(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.live()
	want := map[string]int64{}
	var records []broker.Record
	for i := range 2500 {
		key := fmt.Sprintf("k%d", i%50)
		want[key] = int64(i)
		records = append(records, b.thing(key, int64(i)))
	}
	b.tell(0, records...)
	b.tell(1, b.thing("other", 7), b.thing("bad", -1), broker.Record{Key: []byte("broken"), Value: []byte("{")})
	want["other"] = 7
	b.serves(want)
	if _, err := b.db.Exec(t.Context(), `INSERT INTO things SELECT serving_generation(), 'never told', 1; UPDATE things SET version = 0 WHERE key = 'k1'`); err != nil {
		t.Fatal(err)
	}

	var met sync.Once
	inside, goOn := make(chan struct{}), make(chan struct{})
	gate := func(ctx context.Context, to readside.Target) error {
		if to != readside.Live {
			met.Do(func() { close(inside) })
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return nil
	}
	b.gate.Store(&gate)
	r, _ := b.rebuilder()
	g, err := r.Start(t.Context(), false)
	if err != nil || g.ID != 2 || g.State != "BUILDING" {
		t.Fatalf("start: %+v, %v", g, err)
	}
	<-inside
	if _, err := r.Start(t.Context(), false); !errors.Is(err, readside.ErrRunning) {
		t.Errorf("a second start: %v", err)
	}
	b.tell(0, b.thing("k2", 9999), b.thing("new", 1))
	served, _ := b.things()
	if served["never told"] != 1 {
		t.Error("while it is built, it serves already")
	}
	b.eventually("what is told meanwhile is served", func() bool { got, _ := b.things(); return got["new"] == 1 })
	close(goOn)
	b.eventually("the generation before is gone", func() bool { _, all := b.things(); return b.generations() == "RETIRED SERVING" && all == len(want)+1 })

	want["k2"], want["new"] = 9999, 1
	b.serves(want)
	b.tell(0, b.thing("k3", 8888))
	want["k3"] = 8888
	b.serves(want)
	if g, ok, err := r.Find(t.Context(), 2); err != nil || !ok || g.Records < 2503 || g.LeftOut != 2 || g.FinishedAt == nil {
		t.Errorf("afterwards: %+v, %t, %v", g, ok, err)
	}
}

// A rebuild that ends before its time, with its process or without, leaves what was there, and the next one starts
// afresh.
func TestRebuildThatDies(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.live()
	b.tell(0, b.thing("a", 1), b.thing("b", 1))
	want := map[string]int64{"a": 1, "b": 1}
	b.serves(want)

	inside := make(chan struct{})
	gate := func(ctx context.Context, to readside.Target) error {
		if to == 2 {
			close(inside)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	b.gate.Store(&gate)
	r, stop := b.rebuilder()
	if _, err := r.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	<-inside
	stop()
	b.serves(want)
	if got := b.generations(); got != "SERVING FAILED" {
		t.Errorf("after a stop: %s", got)
	}

	// A process that was killed says nothing.
	if _, err := b.db.Exec(t.Context(), `INSERT INTO generations (state) VALUES ('BUILDING'); INSERT INTO things VALUES (3, 'a', 0), (3, 'ghost', 1)`); err != nil {
		t.Fatal(err)
	}
	b.tell(0, b.thing("a", 2))
	want["a"] = 2
	b.serves(want)
	r, _ = b.rebuilder()
	if err := r.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, all := b.things(); all != 2 || b.generations() != "SERVING FAILED FAILED" {
		t.Errorf("after a restart: %d rows, %s", all, b.generations())
	}
	if _, err := r.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	b.eventually("the next one serves", func() bool { return b.generations() == "RETIRED FAILED FAILED SERVING" })
	b.serves(want)
}
