package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(envDatabase) != "" {
		relayProcess()
	}
	pgtest.Main(m)
}

func database(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "outbox", func(ctx context.Context, pool *pgxpool.Pool) error {
		return pg.Migrate(ctx, pool, outbox.Migration())
	})
}

func client(t *testing.T, c *brokertest.Cluster) *broker.Client {
	t.Helper()
	cl, err := broker.Open(broker.Config{Brokers: c.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// emit commits one event of the key.
func emit(t testing.TB, db *pgxpool.Pool, topic, key, value string) {
	t.Helper()
	err := pg.InTx(context.Background(), db, func(tx pgx.Tx) error {
		return outbox.Insert(context.Background(), tx, []outbox.Message{{Topic: topic, Key: []byte(key), Value: []byte(value)}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a relay until the returned function is called, which waits for its end.
func start(t *testing.T, r *outbox.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("relay: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

func empty(t *testing.T, db *pgxpool.Pool) func() bool {
	return func() bool {
		s, err := outbox.ReadStats(context.Background(), db)
		if err != nil {
			t.Fatal(err)
		}
		return s.Depth == 0
	}
}

// read returns the topic's values by key, in the log's order.
func read(t *testing.T, cl *broker.Client, topic string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := cl.Scan(t.Context(), topic, func(r broker.Record) error {
		out[string(r.Key)] = append(out[string(r.Key)], string(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// firsts keeps the first occurrence of each value: what is left when consumers deduplicate.
func firsts(values []string) []string {
	var out []string
	for _, v := range values {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func counted(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strconv.Itoa(i)
	}
	return out
}

// Each writer holds its key, as a handler holds its order's row; all commit at once and wake the relay.
func TestRelayKeepsOrderPerKey(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db, cl, topic := database(t), client(t, c), c.Topic(t, 3)
		r := outbox.NewRelay(db, cl, outbox.Config{Batch: 7})
		stop := start(t, r)
		var writers sync.WaitGroup
		for k := range 8 {
			writers.Go(func() {
				for i := range 50 {
					emit(t, db, topic, fmt.Sprint("key-", k), strconv.Itoa(i))
					r.Wake()
				}
			})
		}
		writers.Wait()
		eventually(t, "the outbox is empty", empty(t, db))
		stop()
		got := read(t, cl, topic)
		for k := range 8 {
			if values := got[fmt.Sprint("key-", k)]; !slices.Equal(values, counted(50)) {
				t.Errorf("key-%d came as %v; want 0 to 49, each once and in order", k, values)
			}
		}
	})
}

// crashing publishes and then says that it failed, as when the process ends between the broker's acknowledgement and
// the delete.
type crashing struct {
	outbox.Producer
	left atomic.Int32
}

func (p *crashing) Produce(ctx context.Context, recs []broker.Record) []error {
	errs := p.Producer.Produce(ctx, recs)
	if p.left.Add(-1) >= 0 {
		for i := range errs {
			errs[i] = errors.New("the answer was lost")
		}
	}
	return errs
}

func TestRelayPublishesAgainAfterACrash(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db, cl, topic := database(t), client(t, c), c.Topic(t, 1)
		for i := range 10 {
			emit(t, db, topic, "k", strconv.Itoa(i))
		}
		p := &crashing{Producer: cl}
		p.left.Store(2)
		stop := start(t, outbox.NewRelay(db, p, outbox.Config{Retry: 20 * time.Millisecond, Poll: 20 * time.Millisecond}))
		eventually(t, "the outbox is empty", empty(t, db))
		stop()
		got := read(t, cl, topic)["k"]
		if len(got) != 30 {
			t.Errorf("published %d times, want each of 10 events three times", len(got))
		}
		if !slices.Equal(firsts(got), counted(10)) {
			t.Errorf("order of first occurrences %v, want 0 to 9", firsts(got))
		}
	})
}

// The leader's session is killed again and again while events flow; another relay takes over, and nothing is lost or
// out of order.
func TestLeaderChange(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db, cl, topic := database(t), client(t, c), c.Topic(t, 2)
		for range 2 {
			start(t, outbox.NewRelay(db, cl, outbox.Config{Poll: 40 * time.Millisecond, Batch: 5}))
		}
		const n = 200
		for i := range n {
			emit(t, db, topic, "k", strconv.Itoa(i))
			if i%40 == 20 {
				eventually(t, "a leader to kill", func() bool {
					tag, err := db.Exec(context.Background(), `SELECT pg_terminate_backend(pid) FROM pg_locks
						WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
					return err == nil && tag.RowsAffected() > 0
				})
			}
		}
		eventually(t, "the outbox is empty", empty(t, db))
		if got := firsts(read(t, cl, topic)["k"]); !slices.Equal(got, counted(n)) {
			t.Errorf("order of first occurrences %v", got)
		}
	})
}

// A relay that is not the leader passes the wake-up on: with a slow poll, the event arrives all the same.
func TestFollowerWakesTheLeader(t *testing.T) {
	db := database(t)
	published := make(chan string, 10)
	p := producer(func(recs []broker.Record) []error {
		for _, r := range recs {
			published <- string(r.Value)
		}
		return make([]error, len(recs))
	})
	relays := []*outbox.Relay{outbox.NewRelay(db, p, outbox.Config{Poll: time.Hour}), outbox.NewRelay(db, p, outbox.Config{Poll: time.Hour})}
	for _, r := range relays {
		start(t, r)
	}
	eventually(t, "a leader that listens", func() bool {
		var n int
		err := db.QueryRow(context.Background(), `SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN outbox' AND datname = current_database()`).Scan(&n)
		return err == nil && n == 1
	})
	for _, r := range relays { // whichever leads
		emit(t, db, "topic", "k", "v")
		r.Wake()
		select {
		case <-published:
		case <-time.After(20 * time.Second):
			t.Fatal("the leader was not woken")
		}
	}
}

type producer func([]broker.Record) []error

func (p producer) Produce(_ context.Context, recs []broker.Record) []error {
	stamp(recs)
	return p(recs)
}

func (producer) Ends(_ context.Context, epochs map[broker.TopicPartition]int32) (map[broker.TopicPartition]broker.End, error) {
	ends := map[broker.TopicPartition]broker.End{}
	for tp := range epochs {
		ends[tp] = broker.End{Offset: lastOffset.Load() + 1}
	}
	return ends, nil
}

func (producer) Partitions(context.Context, string) (int, error) { return 1, nil }

var lastOffset atomic.Int64

// stamp gives each record a higher offset than all before, as Kafka does.
func stamp(recs []broker.Record) {
	for i := range recs {
		recs[i].Offset = lastOffset.Add(1)
	}
}

// A transaction that took its id early and commits late neither holds the others up nor is forgotten.
func TestLongTransactionElsewhere(t *testing.T) {
	db := database(t)
	var mu sync.Mutex
	var published []string
	seen := func(v string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(published, v) }
	}
	r := outbox.NewRelay(db, producer(func(recs []broker.Record) []error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range recs {
			published = append(published, string(r.Value))
		}
		return make([]error, len(recs))
	}), outbox.Config{Poll: 20 * time.Millisecond})
	start(t, r)

	slow, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := outbox.Insert(t.Context(), slow, []outbox.Message{{Topic: "t", Key: []byte("slow"), Value: []byte("slow")}}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := 0; time.Since(began) < 2500*time.Millisecond; i++ { // long enough for the floor to pass it
		emit(t, db, "t", "fast", strconv.Itoa(i))
		r.Wake()
		eventually(t, "an event beside the long transaction", seen(strconv.Itoa(i)))
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event of the long transaction", seen("slow"))
}

// A topic that refuses its events rests, and the others' flow.
func TestRefusedTopicDoesNotHoldUpOthers(t *testing.T) {
	db := database(t)
	var ok atomic.Bool
	var good, bad atomic.Int32
	r := outbox.NewRelay(db, producer(func(recs []broker.Record) []error {
		errs := make([]error, len(recs))
		for i, r := range recs {
			switch {
			case r.Topic == "good":
				good.Add(1)
			case ok.Load():
				bad.Add(1)
			default:
				errs[i] = errors.New("no such topic")
			}
		}
		return errs
	}), outbox.Config{Batch: 3, Poll: 20 * time.Millisecond, Retry: 50 * time.Millisecond})
	for i := range 10 { // more than a batch of them come first
		emit(t, db, "bad", "k", strconv.Itoa(i))
	}
	start(t, r)
	for i := range 10 {
		emit(t, db, "good", "k", strconv.Itoa(i))
		r.Wake()
	}
	eventually(t, "the good topic's events", func() bool { return good.Load() == 10 })
	ok.Store(true)
	eventually(t, "the other topic's events, once it takes them", func() bool { return bad.Load() == 10 })
}

// At the stop the outbox is published before Run returns.
func TestStopFlushes(t *testing.T) {
	db := database(t)
	var n atomic.Int32
	r := outbox.NewRelay(db, producer(func(recs []broker.Record) []error {
		n.Add(int32(len(recs)))
		return make([]error, len(recs))
	}), outbox.Config{Poll: time.Hour, Batch: 10})
	stop := start(t, r)
	emit(t, db, "t", "k", "first")
	r.Wake()
	eventually(t, "the relay leads", func() bool { return n.Load() == 1 })
	for i := range 95 {
		emit(t, db, "t", "k", strconv.Itoa(i)) // and nobody wakes it
	}
	stop()
	if n.Load() != 96 || !empty(t, db)() {
		t.Errorf("published %d of 96 before the stop", n.Load())
	}
}

// After 100,000 events the table is small again.
func TestPublishedRowsAreGone(t *testing.T) {
	db := database(t)
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox (topic, key, value, headers)
		SELECT 't', 'k', repeat('x', 200)::bytea, '[["ce_id","1"]]' FROM generate_series(1, 100000)`); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int32
	stop := start(t, outbox.NewRelay(db, producer(func(recs []broker.Record) []error {
		n.Add(int32(len(recs)))
		return make([]error, len(recs))
	}), outbox.Config{}))
	eventually(t, "the outbox is empty", empty(t, db))
	stop()
	if _, err := db.Exec(t.Context(), `VACUUM outbox`); err != nil { // what autovacuum does in its time
		t.Fatal(err)
	}
	var bytes int64
	if err := db.QueryRow(t.Context(), `SELECT pg_table_size('outbox')`).Scan(&bytes); err != nil {
		t.Fatal(err)
	}
	if n.Load() != 100_000 || bytes > 1<<20 {
		t.Errorf("%d events published, the empty table has %d bytes", n.Load(), bytes)
	}
}

func TestHeadersSurvive(t *testing.T) {
	db := database(t)
	want := []broker.Header{{Key: "ce_id", Value: []byte("1")}, {Key: "ce_id", Value: []byte("again")}, {Key: "raw", Value: []byte{0xff, 0, 1}}, {Key: "日本", Value: []byte("\x00é")}, {Key: "empty", Value: []byte{}}}
	msg := outbox.Message{Topic: "t", Key: []byte{0xff}, Value: []byte{0, 1, 0xfe}, Headers: want}
	if err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error { return outbox.Insert(t.Context(), tx, []outbox.Message{msg}) }); err != nil {
		t.Fatal(err)
	}
	got, err := outbox.Waiting(t.Context(), db, 10)
	if err != nil || len(got) != 1 {
		t.Fatalf("read %v, %v", got, err)
	}
	if !slices.EqualFunc(got[0].Headers, want, func(a, b broker.Header) bool { return a.Key == b.Key && string(a.Value) == string(b.Value) }) {
		t.Errorf("headers %v, want %v", got[0].Headers, want)
	}
	if string(got[0].Key) != string(msg.Key) || string(got[0].Value) != string(msg.Value) {
		t.Errorf("key %v value %v", got[0].Key, got[0].Value)
	}
}

func TestTooLargeIsRefusedWhereItIsWritten(t *testing.T) {
	db := database(t)
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		return outbox.Insert(t.Context(), tx, []outbox.Message{{Topic: "t", Value: make([]byte, outbox.MaxMessageBytes+1)}})
	})
	if err == nil || !empty(t, db)() {
		t.Fatalf("error %v; want the message refused and nothing written", err)
	}
}

func TestStatementsFitTheSchema(t *testing.T) {
	pgtest.Prepare(t, database(t))
}
