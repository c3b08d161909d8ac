package outbox_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// slow is a transaction that takes its time between its steps.
type slow struct {
	tx       pgx.Tx
	key      string
	handover *outbox.Handover
}

func lockKey(t *testing.T, db *pgxpool.Pool, key string) *slow {
	t.Helper()
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `UPDATE keys SET n = n + 1 WHERE key = $1`, key); err != nil {
		t.Fatal(err)
	}
	return &slow{tx: tx, key: key}
}

// emit writes the key's first event.
func (s *slow) emit(t *testing.T, r *outbox.Relay, topic string) {
	t.Helper()
	var b pgx.Batch
	var err error
	if s.handover, err = r.Queue(&b, []outbox.Message{{Topic: topic, Key: []byte(s.key), Value: []byte("0")}}); err != nil {
		t.Fatal(err)
	}
	if err := s.tx.SendBatch(t.Context(), &b).Close(); err != nil {
		t.Fatal(err)
	}
}

func (s *slow) commit(t *testing.T) {
	t.Helper()
	err := s.tx.Commit(t.Context())
	s.handover.Done(err == nil)
	if err != nil {
		t.Fatal(err)
	}
}

// handFor hands over events of the key, one after the other, for a while.
func handFor(t *testing.T, d time.Duration, db *pgxpool.Pool, r *outbox.Relay, topic, key string) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := hand(t.Context(), db, r, topic, key, true); err != nil {
			t.Fatal(err)
		}
	}
}

// then hands over three more events of the key and holds the topic to their order.
func then(t *testing.T, db *pgxpool.Pool, cl *broker.Client, r *outbox.Relay, topic, key string) {
	t.Helper()
	for range 3 {
		if err := hand(t.Context(), db, r, topic, key, true); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the outbox is empty", empty(t, db))
	if got := firsts(read(t, cl, topic)[key]); !slices.Equal(got, counted(4)) {
		t.Errorf("published %v", got)
	}
}

// The younger of two transactions takes the lower id and commits last; no other has ended that began after it.
func TestYoungerTransactionWithTheLowerIDKeepsItsOrder(t *testing.T) {
	c := brokertest.Fake(t)
	db, cl, topic := keyedAlone(t, 2), client(t, c), c.Topic(t, 1)
	r := outbox.NewRelay(db, cl, outbox.Config{})
	older := lockKey(t, db, "k0")
	younger := lockKey(t, db, "k1")
	younger.emit(t, r, topic)
	older.emit(t, r, topic)
	older.commit(t)
	start(t, r)
	eventually(t, "the other key's event", func() bool { return len(read(t, cl, topic)["k0"]) == 1 })
	looks := 0
	eventually(t, "a few looks", func() bool { r.Wake(); looks++; return looks > 20 })
	younger.commit(t)
	then(t, db, cl, r, topic, "k1")
}

// A transaction takes longer between its event and its commit than the relay remembers what it published.
func TestSlowTransactionKeepsItsOrder(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	db, cl, topic := keyed(t, 2), client(t, c), c.Topic(t, 1)
	r := outbox.NewRelay(db, cl, outbox.Config{})
	start(t, r)
	late := lockKey(t, db, "k1")
	late.emit(t, r, topic)
	handFor(t, 3500*time.Millisecond, db, r, topic, "k0")
	late.commit(t)
	then(t, db, cl, r, topic, "k1")
}

// said is a log to look into.
type said struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *said) times(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.out.String(), text)
}

func (s *said) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }

// A follower with so much to pass on that the leader is never without a wake-up does not cost it its leadership.
func TestBusyFollowerKeepsItsLeader(t *testing.T) {
	t.Parallel()
	c := brokertest.Fake(t)
	db, cl, topic := keyed(t, 1), client(t, c), c.Topic(t, 1)
	var log said
	cfg := outbox.Config{Lease: shortLease, Log: log.logger()}
	start(t, outbox.NewRelay(db, cl, cfg))
	eventually(t, "the first leads", func() bool { return log.times("relay leads") == 1 })
	follower := outbox.NewRelay(db, cl, cfg)
	start(t, follower)
	handFor(t, 4*shortLease, db, follower, topic, "k0")
	if n := log.times("relay leads"); n != 1 {
		t.Errorf("leadership was taken %d times", n)
	}
}

// picky refuses one key, as a partition without a leader does.
type picky struct {
	producer
	refused string
}

func (p picky) Produce(_ context.Context, records []broker.Record) []error {
	stamp(records)
	errs := make([]error, len(records))
	for i := range records {
		if string(records[i].Key) == p.refused {
			errs[i] = errors.New("no leader")
		}
	}
	return errs
}

// A topic rests when one of its partitions refuses, though others take; and says so once.
func TestHalfARefusalIsARest(t *testing.T) {
	t.Parallel()
	db := keyed(t, 2)
	var log said
	r := outbox.NewRelay(db, picky{refused: "k0"}, outbox.Config{Log: log.logger(), Flush: 100 * time.Millisecond})
	stop := start(t, r)
	if err := hand(t.Context(), db, r, "topic", "k0", true); err != nil {
		t.Fatal(err)
	}
	handFor(t, 2*time.Second, db, r, "topic", "k1")
	stop()
	if n := log.times("events wait"); n != 1 {
		t.Errorf("it was said %d times in two seconds", n)
	}
}

// An event is committed between two batches of one look, below the last of the first batch; its successor is in the
// second. It comes first.
func TestNoBatchOvertakesWhatTheOneBeforeDidNotSee(t *testing.T) {
	t.Parallel()
	db := database(t)
	late, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := outbox.Insert(t.Context(), late, []outbox.Message{{Topic: "t", Key: []byte("k"), Value: []byte("0")}}); err != nil {
		t.Fatal(err)
	}
	const batch = 5
	for i := range batch {
		emit(t, db, "t", "other", strconv.Itoa(i))
	}
	var mu sync.Mutex
	var published []string
	var once sync.Once
	start(t, outbox.NewRelay(db, producer(func(recs []broker.Record) []error {
		once.Do(func() {
			if err := late.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			emit(t, db, "t", "k", "1")
		})
		mu.Lock()
		defer mu.Unlock()
		for _, r := range recs {
			if string(r.Key) == "k" {
				published = append(published, string(r.Value))
			}
		}
		return make([]error, len(recs))
	}), outbox.Config{Batch: batch}))
	eventually(t, "all are published", empty(t, db))
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(published, []string{"0", "1"}) {
		t.Errorf("published: %v", published)
	}
}
