package saga_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/saga"
)

func config(b *bundleDB) saga.Config {
	return saga.Config{DB: b.pool, Attempts: 3, Backoff: time.Millisecond}
}

// What a handler fails with is its message's, whatever it looks like, and so is time that it takes while the database
// answers.
func TestHandlersOwnFaultsAreBuried(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		bad     func(ctx context.Context, tx pgx.Tx) error
		timeout time.Duration
	}{
		"io.EOF":                 {bad: func(context.Context, pgx.Tx) error { return io.EOF }},
		"a deadline of its own":  {bad: func(context.Context, pgx.Tx) error { return fmt.Errorf("ask: %w", context.DeadlineExceeded) }},
		"a deadline for a query": {bad: func(ctx context.Context, tx pgx.Tx) error { return brief(ctx, tx) }},
		"a statement timeout": {bad: func(ctx context.Context, tx pgx.Tx) error {
			return query(ctx, tx, `SET LOCAL statement_timeout = '20ms'`, `SELECT pg_sleep(10)`)
		}},
		"idle in the transaction": {bad: func(ctx context.Context, tx pgx.Tx) error {
			if err := query(ctx, tx, `SET LOCAL idle_in_transaction_session_timeout = '10ms'`); err != nil {
				return err
			}
			<-time.After(50 * time.Millisecond)
			return query(ctx, tx, `SELECT 1`)
		}},
		"all the time there is": {timeout: 300 * time.Millisecond, bad: func(ctx context.Context, tx pgx.Tx) error {
			return query(ctx, tx, `SELECT pg_sleep(10)`)
		}},
		"an error that it swallows": {bad: func(ctx context.Context, tx pgx.Tx) error { _ = query(ctx, tx, `SELECT 1/0`); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBundleDB(t)
			cfg := config(b)
			cfg.Timeout = tt.timeout
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := saga.Deliver(ctx, service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
				if m.Key == "bad" {
					if err := tt.bad(ctx, tx); err != nil {
						return nil, err
					}
				}
				return work(ctx, tx, m)
			}), cfg, at(0, ask(t, "a", 1)), at(1, ask(t, "bad", 2)), at(2, ask(t, "b", 3)))
			if got := sorted(effects(t, b.pool)); err != nil || !slices.Equal(got, []string{"a=1", "b=3"}) {
				t.Errorf("effects %v, %v; want those of the good messages", got, err)
			}
			if got := b.letters(); len(got) != 1 || got[0].Attempts != 3 {
				t.Errorf("dead letters %+v, want the one that failed three times", got)
			}
		})
	}
}

// A session that the server ends is the infrastructure's fault: tried again, and nobody is buried.
func TestKilledSessionsBuryNobody(t *testing.T) {
	t.Parallel()
	b := newBundleDB(t)
	kills := 10
	if err := saga.Deliver(t.Context(), service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if kills--; kills >= 0 {
			_ = query(ctx, tx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return nil, errors.New("hidden")
		}
		return work(ctx, tx, m)
	}), config(b), at(0, ask(t, "a", 1)), at(1, ask(t, "b", 2))); err != nil {
		t.Fatal(err)
	}
	if got := b.letters(); len(got) != 0 || len(effects(t, b.pool)) != 2 {
		t.Errorf("dead letters %+v, effects %v", got, effects(t, b.pool))
	}
}

// A key that always fails: its messages die in order, each after one attempt, or none, behind the first.
func TestFollowersOfADeadHead(t *testing.T) {
	t.Parallel()
	for followers, attempts := range map[saga.Followers]int{saga.TryOnce: 3 + 4, saga.BuryWithHead: 3} {
		b := newBundleDB(t)
		cfg := config(b)
		cfg.Followers = followers
		var mu sync.Mutex
		tried := 0
		var records []broker.Record
		for i := range 5 {
			records = append(records, at(i, ask(t, "bad", i+1)))
		}
		records = append(records, at(5, ask(t, "good", 1)))
		if err := saga.Deliver(t.Context(), service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
			if m.Key == "bad" {
				mu.Lock()
				defer mu.Unlock()
				tried++
				return nil, errors.New("no")
			}
			return work(ctx, tx, m)
		}), cfg, records...); err != nil {
			t.Fatal(err)
		}
		var died []int64
		for _, d := range b.letters() {
			died = append(died, d.Offset)
		}
		if !slices.Equal(died, []int64{0, 1, 2, 3, 4}) || len(effects(t, b.pool)) != 1 {
			t.Errorf("%v: dead letters of %v, effects %v", followers, died, effects(t, b.pool))
		}
		// The first batch, which does not know yet, tries the head twice: together with the others and alone.
		if tried != attempts+1 {
			t.Errorf("%v: %d attempts, want %d", followers, tried, attempts+1)
		}
	}
}

// What waits has no room in memory, the process ends in the middle of it, and all comes to its end in order.
func TestParkedInTheDatabase(t *testing.T) {
	t.Parallel()
	b := newBundleDB(t)
	const n = 12_000
	var mu sync.Mutex
	good := false
	svc := service(func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		mu.Lock()
		defer mu.Unlock()
		if m.Key == "bad" && !good {
			return nil, errors.New("not yet")
		}
		return work(ctx, tx, m)
	})
	records := make([]broker.Record, n)
	for i := range records {
		records[i] = at(i, ask(t, "bad", i+1))
	}
	records[n-1] = at(n-1, ask(t, "other", 1))
	cfg := saga.Config{DB: b.pool, Attempts: 1000, Backoff: time.Minute}
	s := saga.NewSession(svc, cfg)
	for poll := range slices.Chunk(records, 500) {
		if err := s.Handle(t.Context(), poll); err != nil {
			t.Fatal(err)
		}
	}
	if count, bytes, rows := s.Waiting(); count > 5000 || bytes > 8<<20 || count+rows != n-1 {
		t.Errorf("%d messages of %d bytes wait in memory and %d in the database", count, bytes, rows)
	}
	if got := effects(t, b.pool); !slices.Equal(got, []string{"other=1"}) {
		t.Errorf("effects %d, want that of the other key", len(got))
	}
	committed := s.Committed()[broker.TopicPartition{Topic: "question"}]
	if committed < n/2 {
		t.Errorf("the offset to go on from is %d, though what is below waits in the database", committed)
	}
	good = true
	again := saga.NewSession(svc, saga.Config{DB: b.pool})
	for poll := range slices.Chunk(records[committed:], 500) {
		if err := again.Handle(t.Context(), poll); err != nil {
			t.Fatal(err)
		}
	}
	if err := again.Adopt(t.Context(), broker.TopicPartition{Topic: "question"}); err != nil {
		t.Fatal(err)
	}
	for count, _, rows := again.Waiting(); count+rows > 0; count, _, rows = again.Waiting() {
		if err := again.Handle(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	got := effects(t, b.pool)
	if len(got) != n {
		t.Fatalf("%d effects, want %d", len(got), n)
	}
	for i, e := range got[1:] {
		if want := fmt.Sprintf("bad=%d", i+1); e != want {
			t.Fatalf("effect %d is %s, want %s", i, e, want)
		}
	}
	var left int
	if err := b.pool.QueryRow(t.Context(), `SELECT count(*) FROM inbox_parked`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows are left, %v", left, err)
	}
}

func query(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

func brief(ctx context.Context, tx pgx.Tx) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	return query(ctx, tx, `SELECT pg_sleep(10)`)
}

func at(offset int, r broker.Record) broker.Record { r.Offset = int64(offset); return r }

func sorted(s []string) []string { slices.Sort(s); return s }

// bundleDB is a service's database.
type bundleDB struct {
	t    *testing.T
	pool *pgxpool.Pool
}

func newBundleDB(t *testing.T) *bundleDB { return &bundleDB{t, database(t)} }

// letters are the dead letters in the outbox, in order.
func (b *bundleDB) letters() []saga.DeadLetter {
	b.t.Helper()
	waiting, err := outbox.Waiting(b.t.Context(), b.pool, 100_000)
	if err != nil {
		b.t.Fatal(err)
	}
	return dead(b.t, waiting)
}
