package facts_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Two tables of different shapes that show the same.
var (
	teas  = facts.Shown{Of: "teas", Table: "teas", ID: "id", Version: "version", Text: []string{"name", "price"}}
	cards = facts.Shown{Of: "teas", Table: "cards", Where: "kind = 'tea'", ID: "id", Version: "version", Text: []string{"title", "cost"}}
)

func shelf(t *testing.T, n int) *pgxpool.Pool {
	t.Helper()
	db := pgtest.New(t, "shown", func(ctx context.Context, db *pgxpool.Pool) error {
		_, err := db.Exec(ctx, `CREATE TABLE teas (id text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, name text NOT NULL, price bigint);
			CREATE TABLE cards (kind text, cost bigint, title text NOT NULL, version bigint NOT NULL, id text COLLATE "C", PRIMARY KEY (kind, id))`)
		return err
	})
	shelve(t, db, `INSERT INTO teas SELECT 'Grüner-' || i, i, 'tea ' || i, CASE WHEN i % 3 > 0 THEN 100 END FROM generate_series(1, $1::int) AS i`, n)
	shelve(t, db, `INSERT INTO cards SELECT 'tea', price, name, version, id FROM teas UNION ALL SELECT 'cup', 1, 'cup', 1, 'cup'`)
	return db
}

func shelve(t *testing.T, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// Who holds things and who shows them digest the same while they show the same, and something else as soon as one thing
// differs, in whatever.
func TestShownDigests(t *testing.T) {
	t.Parallel()
	db := shelf(t, 500)
	digest := func(s facts.Shown) []facts.ShownBucket {
		t.Helper()
		buckets, err := s.Digest(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		return buckets
	}
	was := digest(teas)
	if diff := cmp.Diff(was, digest(cards)); diff != "" || len(was) < 100 {
		t.Fatalf("%d buckets, the same is digested otherwise (-held +shown):\n%s", len(was), diff)
	}
	for _, change := range []string{
		`UPDATE cards SET title = 'tea  7' WHERE id = 'Grüner-7'`, `UPDATE cards SET cost = NULL WHERE id = 'Grüner-7'`, `UPDATE cards SET version = 8 WHERE id = 'Grüner-7'`,
		`DELETE FROM cards WHERE id = 'Grüner-7'`, `UPDATE cards SET title = title || ' 1', cost = 0 WHERE id = 'Grüner-7'`, `INSERT INTO cards VALUES ('tea', 1, 'cup', 1, 'cup')`,
		`UPDATE cards SET title = CASE id WHEN 'Grüner-7' THEN 'tea 8' ELSE 'tea 7' END WHERE id IN ('Grüner-7', 'Grüner-8')`,
	} {
		shelve(t, db, change)
		now := digest(cards)
		n := 0
		for _, b := range now {
			if !slices.Contains(was, b) {
				n++
			}
		}
		if n == 0 && len(now) == len(was) {
			t.Errorf("%s: the digests agree", change)
		}
		shelve(t, db, `DELETE FROM cards WHERE kind = 'tea'`)
		shelve(t, db, `INSERT INTO cards SELECT 'tea', price, name, version, id FROM teas`)
	}
}

// The pages of a list are all things of its buckets, by id, and the two sides list the same.
func TestShownList(t *testing.T) {
	t.Parallel()
	db := shelf(t, 500)
	digest, err := teas.Digest(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	var buckets []int
	var want int64
	for _, b := range digest[:50] {
		buckets, want = append(buckets, b.Bucket), want+b.Count
	}
	all := func(s facts.Shown) (all []facts.ShownThing) {
		t.Helper()
		for after := ""; ; after = all[len(all)-1].ID {
			page, err := s.List(t.Context(), db, buckets, after, 7)
			if err != nil || len(page) > 7 {
				t.Fatal(len(page), err)
			}
			if all = append(all, page...); len(page) < 7 {
				return all
			}
		}
	}
	held := all(teas)
	if diff := cmp.Diff(held, all(cards)); diff != "" || int64(len(held)) != want {
		t.Errorf("%d things of %d (-held +shown):\n%s", len(held), want, diff)
	}
	if !slices.IsSortedFunc(held, func(a, b facts.ShownThing) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("not by id: %v", held)
	}
}
