package inbox_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "inbox", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, inbox.Migration()) })
}

func newIDs(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
	}
	return ids
}

// handle marks the messages as handled, as a consumer does, and returns how many were new.
func handle(t *testing.T, db pg.Beginner, consumer string, ids ...uuid.UUID) int {
	t.Helper()
	ctx := context.Background()
	for {
		n := 0
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			seen, err := inbox.Seen(ctx, tx, consumer, ids)
			if err != nil {
				return err
			}
			var fresh []uuid.UUID
			for _, id := range ids {
				if !seen[id] {
					fresh, seen[id] = append(fresh, id), true
				}
			}
			n = len(fresh)
			var b pgx.Batch
			inbox.Record(&b, consumer, fresh)
			return pg.Defer(ctx, tx, &b)
		})
		if inbox.Duplicate(err) {
			continue // another member was faster
		}
		if err != nil {
			t.Error(err)
		}
		return n
	}
}

func TestOncePerConsumer(t *testing.T) {
	t.Parallel()
	db, ids := database(t), newIDs(3)
	if n := handle(t, db, "a", ids[0], ids[1], ids[0]); n != 2 {
		t.Errorf("%d fresh of two ids, one of them twice", n)
	}
	if n := handle(t, db, "a", ids...); n != 1 {
		t.Errorf("%d fresh, want only the third", n)
	}
	if n := handle(t, db, "b", ids...); n != 3 {
		t.Errorf("%d fresh for another consumer, want all", n)
	}
}

// A consumer that does not look first learns of a duplicate at the end, and nothing of what it did remains.
func TestRecordUndoesADuplicate(t *testing.T) {
	t.Parallel()
	db, ids := database(t), newIDs(2)
	handle(t, db, "a", ids[0])
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		var b pgx.Batch
		inbox.Record(&b, "b", ids)
		inbox.Record(&b, "a", ids)
		return pg.Defer(t.Context(), tx, &b)
	})
	if !inbox.Duplicate(err) {
		t.Fatalf("error %v, want a duplicate", err)
	}
	if n := handle(t, db, "b", ids...); n != 2 {
		t.Errorf("%d fresh for the consumer whose work was undone, want 2", n)
	}
	if n := handle(t, db, "a", ids...); n != 1 {
		t.Errorf("%d fresh, want the one that never was handled", n)
	}
}

// Two members hold the same messages, as around a rebalance, in different orders: each message is one's.
func TestConcurrentMembers(t *testing.T) {
	t.Parallel()
	db, ids := database(t), newIDs(200)
	backwards := slices.Clone(ids)
	slices.Reverse(backwards)
	var members sync.WaitGroup
	var mu sync.Mutex
	total := 0
	for i := range 8 {
		members.Go(func() {
			mine := ids
			if i%2 == 1 {
				mine = backwards
			}
			n := handle(t, db, "a", mine...)
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	members.Wait()
	if total != 200 {
		t.Errorf("200 messages were handled %d times", total)
	}
}

// A member that rolls back leaves its messages to the one that waits for it.
func TestRecordWaitsForTheOutcome(t *testing.T) {
	t.Parallel()
	db, ids := database(t), newIDs(1)
	tx, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b pgx.Batch
	inbox.Record(&b, "a", ids)
	if err := tx.SendBatch(t.Context(), &b).Close(); err != nil {
		t.Fatal(err)
	}
	got := make(chan int)
	go func() { got <- handle(t, db, "a", ids...) }()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 1 {
		t.Errorf("%d fresh after the other's rollback, want 1", n)
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	db := database(t)
	old, recent, late := newIDs(250), newIDs(30), newIDs(20)
	for i := range old {
		old[i][0], old[i][1] = 0, 1 // ids of long ago
	}
	for i := range late { // ids of long ago, handled only now
		late[i][0], late[i][1] = 0, 2
	}
	for _, consumer := range []string{"a", "b"} {
		handle(t, db, consumer, old...)
	}
	if _, err := db.Exec(t.Context(), `UPDATE inbox SET seen_at = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	handle(t, db, "a", recent...)
	handle(t, db, "a", late...)
	n, err := inbox.Prune(t.Context(), db, time.Hour, 100)
	if err != nil || n != 500 {
		t.Fatalf("pruned %d, %v; want the 250 old rows of each consumer", n, err)
	}
	if n := handle(t, db, "a", append(recent, late...)...); n != 0 {
		t.Errorf("%d messages were forgotten too early", n)
	}
}

// After a run of 100,000 orders and the retention, the table is small again, while the consumer goes on.
func TestPruneAfterALongRun(t *testing.T) {
	t.Parallel()
	db := database(t)
	if _, err := db.Exec(t.Context(), `INSERT INTO inbox (consumer, id, seen_at)
		SELECT 'a', uuidv7(interval '-2 hours'), now() - interval '2 hours' FROM generate_series(1, 100000)`); err != nil {
		t.Fatal(err)
	}
	handle(t, db, "a", newIDs(100)...)
	if n, err := inbox.Prune(t.Context(), db, time.Hour, 5000); err != nil || n != 100_000 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	if _, err := db.Exec(t.Context(), `VACUUM inbox`); err != nil { // what autovacuum does in its time
		t.Fatal(err)
	}
	handle(t, db, "a", newIDs(100_000)...) // goes where the old rows were
	var rows int
	var bytes int64
	if err := db.QueryRow(t.Context(), `SELECT count(*), pg_total_relation_size('inbox') FROM inbox`).Scan(&rows, &bytes); err != nil {
		t.Fatal(err)
	}
	if rows != 100_100 || bytes > 20<<20 {
		t.Errorf("%d rows in %d bytes after two rounds of 100,000, of which the first was pruned", rows, bytes)
	}
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, database(t))
}
