package inbox_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/inbox"
)

func floors(t *testing.T, db *pgxpool.Pool, consumer string) []string {
	t.Helper()
	noted, err := inbox.Floors(t.Context(), db, consumer)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range noted {
		out = append(out, fmt.Sprintf("%s/%d %d", f.Topic, f.Partition, f.Next))
	}
	slices.Sort(out)
	return out
}

// A floor is a consumer's own, rises only, and is gone when it is forgotten.
func TestFloors(t *testing.T) {
	t.Parallel()
	db := database(t)
	note := func(consumer string, noted ...inbox.Floor) {
		t.Helper()
		if err := inbox.Note(t.Context(), db, consumer, noted); err != nil {
			t.Fatal(err)
		}
	}
	want := func(consumer string, want ...string) {
		t.Helper()
		if got := floors(t, db, consumer); !slices.Equal(got, want) {
			t.Errorf("%s has the floors %v, want %v", consumer, got, want)
		}
	}
	note("a")
	want("a")
	note("a", inbox.Floor{Topic: "t", Partition: 0, Next: 5}, inbox.Floor{Topic: "t", Partition: 1, Next: 6})
	note("a", inbox.Floor{Topic: "t", Partition: 0, Next: 3}, inbox.Floor{Topic: "t", Partition: 1, Next: 8}, inbox.Floor{Topic: "u", Partition: 0, Next: 1 << 40})
	want("a", "t/0 5", "t/1 8", "u/0 1099511627776")
	want("b")
	note("b", inbox.Floor{Topic: "t", Partition: 1, Next: 1})
	if err := inbox.Forget(t.Context(), db, "a", "t", 1); err != nil {
		t.Fatal(err)
	}
	want("a", "t/0 5", "u/0 1099511627776")
	want("b", "t/1 1")
}

// Ids that tell no time, or one of the future, are pruned by the age of their rows; redriven messages never are.
func TestPruneIDsWithoutATime(t *testing.T) {
	t.Parallel()
	db := database(t)
	random := func(n int) []uuid.UUID {
		ids := make([]uuid.UUID, n)
		for i := range ids {
			ids[i] = uuid.New()
			if i%2 == 0 {
				ids[i][6] = ids[i][6]&0x0f | 0x80 // version 8, as foreign ids have it
			}
		}
		return ids
	}
	future := newIDs(10)
	for i := range future {
		future[i][0] = 0x7f
	}
	old, recent, redriven := random(250), random(30), random(7)
	for _, consumer := range []string{"a", "b"} {
		handle(t, db, consumer, old...)
	}
	handle(t, db, "a", future...)
	handle(t, db, "a"+inbox.Forever, redriven...)
	if _, err := db.Exec(t.Context(), `UPDATE inbox SET seen_at = now() - interval '2 hours'`); err != nil {
		t.Fatal(err)
	}
	handle(t, db, "a", recent...)
	n, err := inbox.Prune(t.Context(), db, time.Hour, 100)
	if err != nil || n != 510 {
		t.Fatalf("pruned %d, %v; want the 250 old rows of each consumer and the 10 of the future", n, err)
	}
	if n := handle(t, db, "a", recent...); n != 0 {
		t.Errorf("%d messages were forgotten too early", n)
	}
	if n := handle(t, db, "a"+inbox.Forever, redriven...); n != 0 {
		t.Errorf("%d redriven messages were forgotten", n)
	}
	if consumers, err := inbox.Consumers(t.Context(), db); err != nil || !slices.Equal(consumers, []string{"a"}) {
		t.Errorf("consumers %v, %v", consumers, err)
	}
}

// After a long run of a foreign producer and the retention, the inbox is small again.
func TestPruneAfterALongForeignRun(t *testing.T) {
	t.Parallel()
	db := database(t)
	const n = 100_000
	if _, err := db.Exec(t.Context(), `INSERT INTO inbox (consumer, id, seen_at)
		SELECT 'a', gen_random_uuid(), now() - interval '2 hours' FROM generate_series(1, $1)`, n); err != nil {
		t.Fatal(err)
	}
	if pruned, err := inbox.Prune(t.Context(), db, time.Hour, 5000); err != nil || pruned != n {
		t.Fatalf("pruned %d, %v", pruned, err)
	}
	var rows int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM inbox`).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows are left, %v", rows, err)
	}
}

// Our own events do not pay for the index of foreign ones, and a look for old rows uses it.
func TestTimelessIndex(t *testing.T) {
	t.Parallel()
	db := database(t)
	handle(t, db, "a", newIDs(20_000)...)
	var size int64
	if err := db.QueryRow(t.Context(), `SELECT pg_relation_size('inbox_timeless')`).Scan(&size); err != nil || size > 8192 {
		t.Errorf("the index has %d bytes, %v, with nothing but our own events", size, err)
	}
	if _, err := db.Exec(t.Context(), `ANALYZE inbox`); err != nil {
		t.Fatal(err)
	}
	rows, _ := db.Query(t.Context(), `EXPLAIN SELECT consumer, id FROM inbox
		WHERE (uuid_extract_version(id) IS DISTINCT FROM 7 OR id >= '03bb2cc3-d800-7000-8000-000000000000')
		AND seen_at < now() AND consumer NOT LIKE '%@redrive' ORDER BY seen_at LIMIT 100`)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if text := strings.Join(plan, "\n"); err != nil || !strings.Contains(text, "inbox_timeless") {
		t.Errorf("the plan does not use the index, %v:\n%s", err, text)
	}
}
