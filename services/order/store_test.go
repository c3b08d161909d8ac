package order

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	db := database(t)
	pgtest.Prepare(t, db)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{source.DigestSQL(), source.ListSQL(), source.GetSQL()} {
		if _, err := conn.Conn().Prepare(t.Context(), sql, sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// fill makes n orders of users u-0 and u-1 in turn; every tenth is CONFIRMED.
func fill(t testing.TB, c client, n int) {
	t.Helper()
	if _, err := c.db.Exec(t.Context(), `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at, settled_at)
		SELECT uuidv7(), 'u-' || n % 2, '[]', 1, 'EUR', CASE WHEN n % 10 = 0 THEN 'CONFIRMED' ELSE 'PENDING' END, '[]', now(),
			CASE WHEN n % 10 = 0 THEN now() END
		FROM generate_series(1, $1) AS n`, n); err != nil {
		t.Fatal(err)
	}
}

func TestListPagesThroughEverythingOnce(t *testing.T) {
	t.Parallel()
	c := setup(t)
	fill(t, c, 95)
	for name, want := range map[string]struct {
		filter filter
		orders int
	}{
		"all":                      {filter{limit: 10, scan: 1000}, 95},
		"a user's":                 {filter{user: "u-1", limit: 10, scan: 1000}, 48},
		"of a status":              {filter{status: Confirmed, limit: 2, scan: 1000}, 9},
		"of a rare status":         {filter{status: Cancelled, limit: 2, scan: 7}, 0},
		"of a status, short scans": {filter{status: Confirmed, limit: 2, scan: 7}, 9},
		"a user's of a status":     {filter{user: "u-0", status: Confirmed, limit: 3, scan: 5}, 9},
		"scan as long as the rest": {filter{status: Pending, limit: 100, scan: 95}, 86},
	} {
		f := want.filter
		f.before = uuid.Max
		seen := map[uuid.UUID]bool{}
		for pages := 0; ; pages++ {
			if pages > 95 {
				t.Fatalf("%s: no end", name)
			}
			page, next, err := list(t.Context(), c.db, f)
			if err != nil {
				t.Fatal(err)
			}
			last := f.before
			for _, o := range page {
				if seen[o.ID] || strings.Compare(o.ID.String(), last.String()) >= 0 {
					t.Fatalf("%s: order %s came twice or out of order", name, o.ID)
				}
				if f.status != "" && o.Status != f.status || f.user != "" && o.UserID != f.user {
					t.Fatalf("%s: got an order of %s that is %s", name, o.UserID, o.Status)
				}
				seen[o.ID], last = true, o.ID
			}
			if next == uuid.Nil {
				break
			}
			f.before = next
		}
		if len(seen) != want.orders {
			t.Errorf("%s: %d orders, want %d", name, len(seen), want.orders)
		}
	}
}

// Settling an order must not write to an index: that is what the free room on each page and the choice of indexes are
// for.
func TestSettlingIsAHotUpdate(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const orders, batch = 5000, 50
	var ids []uuid.UUID
	for range orders / postingsPerCommit {
		postings := make([]posting, postingsPerCommit)
		for i := range postings {
			postings[i] = newPosting(t.Context(), Draft{UserID: "u-1", Items: []Item{{"p-1", 1}, {"p-2", 1}}, Amount: 1, Currency: "EUR"}, "", time.Now())
			ids = append(ids, postings[i].order.ID)
		}
		if _, err := c.placer.place(t.Context(), postings); err != nil {
			t.Fatal(err)
		}
	}
	for some := range slices.Chunk(ids, batch) {
		records := make([]broker.Record, len(some))
		for i, id := range some {
			records[i] = completed(t, id)
		}
		sagatest.Deliver(t, c.db, choreography(c.metrics), records...)
	}
	// One connection did all of it, and reports what it counted at the end of its transaction.
	c.count(t, "SELECT 1 FROM pg_stat_force_next_flush()")
	const updates = "SELECT %s FROM pg_stat_user_tables WHERE relname = 'orders'"
	all, hot := c.count(t, fmt.Sprintf(updates, "n_tup_upd")), c.count(t, fmt.Sprintf(updates, "n_tup_hot_upd"))
	if all != len(ids) || hot < all*9/10 {
		t.Errorf("%d of %d updates are HOT, want nearly all of %d", hot, all, len(ids))
	}
	if walks := c.count(t, fmt.Sprintf(updates, "seq_scan")); walks != 0 {
		t.Errorf("the table was walked %d times", walks)
	}
}
