package facts_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// deals are things with a payer and lines.
var deals = facts.Source{
	Set: "dealt", Table: "deals", ID: "id", Member: "done", Amount: "amount", Currency: "currency", User: "user_id", Items: "items",
	Facts: `SELECT id, done, 'DONE', amount, currency, now(), '', user_id, ` + facts.ItemsSQL("items") + ` FROM deals`,
}

func dealing(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "deals", func(ctx context.Context, db *pgxpool.Pool) error {
		_, err := db.Exec(ctx, `CREATE TABLE deals (id uuid PRIMARY KEY, done boolean NOT NULL DEFAULT true, amount bigint NOT NULL, currency text NOT NULL, user_id text NOT NULL, items jsonb NOT NULL)`)
		return err
	})
}

func deal(t *testing.T, db *pgxpool.Pool, id uuid.UUID, amount int64, currency, user, items string) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `INSERT INTO deals VALUES ($1, true, $2, $3, $4, $5::text::jsonb)`, id, amount, currency, user, items); err != nil {
		t.Fatal(err)
	}
}

// SQL and Go write the same texts, so that the same is digested whoever has it, and in whatever order its lines are.
func TestTextsOfContent(t *testing.T) {
	db := dealing(t)
	items := map[string][]facts.Item{
		`[]`:                                 {},
		`[{"productId":"p-1","quantity":2}]`: {{ProductID: "p-1", Quantity: 2}},
		`[{"productId":"b","quantity":2},{"productId":"B","quantity":1}]`:                                                {{"b", 2}, {"B", 1}},
		`[{"productId":"B","quantity":1},{"productId":"b","quantity":2}]`:                                                {{"B", 1}, {"b", 2}},
		`[{"quantity":1,"productId":"b"},{"productId":"a","quantity":1000000,"price":7},{"productId":"B","quantity":3}]`: {{"a", 1000000}, {"b", 1}, {"B", 3}},
		`[{"productId":"p-10","quantity":1},{"productId":"p_1","quantity":1},{"productId":"p.1","quantity":1}]`:          {{"p.1", 1}, {"p_1", 1}, {"p-10", 1}},
	}
	n := 0
	for stored, want := range items {
		for _, user := range []string{"u-1", "", "7 3:EUR ada", "Grüße, “ß”"} {
			n++
			id := idAt(0, n)
			deal(t, db, id, int64(n), "EUR", user, stored)
			got, err := deals.Get(t.Context(), db, id)
			if err != nil || len(got) != 1 {
				t.Fatal(got, err)
			}
			if text := facts.ItemsText(want); got[0].Items != text || *got[0].UserID != user {
				t.Errorf("%s of %q: %s of %q, want %s", stored, user, got[0].Items, *got[0].UserID, text)
			}
			digest, err := deals.Digest(t.Context(), db, facts.Span{From: id, To: idAt(0, n+1)}, time.Hour)
			if err != nil || len(digest) != 1 {
				t.Fatal(digest, err)
			}
			if want := facts.Hex(facts.ContentHash(id, facts.MoneyText(int64(n), "EUR", user))); digest[0].Money != want {
				t.Errorf("money of %q is digested as %s, want %s", user, digest[0].Money, want)
			}
			if want := facts.Hex(facts.ContentHash(id, facts.ItemsText(want))); digest[0].Items != want {
				t.Errorf("%s is digested as %s, want %s", stored, digest[0].Items, want)
			}
		}
	}
	if got, want := facts.MoneyText(4200, "EUR", "u-1"), "4200 3:EUR u-1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := facts.ItemsText([]facts.Item{{"p-7", 1}, {"p-1", 2}}), `[["p-1",2],["p-7",1]]`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Two digests agree where the same is held, and only there: also where two errors cancel each other out in every sum,
// and where a row is so damaged that it is no list of lines.
func TestDigestsTellContentApart(t *testing.T) {
	const one, two = `[{"productId":"p-1","quantity":1}]`, `[{"productId":"p-1","quantity":2},{"productId":"p-2","quantity":1}]`
	span := facts.Between(noon, noon.Add(time.Hour))
	good := func(t *testing.T) *pgxpool.Pool {
		db := dealing(t)
		deal(t, db, idAt(0, 1), 100, "EUR", "ada", one)
		deal(t, db, idAt(0, 2), 200, "USD", "bob", two)
		return db
	}
	digest := func(t *testing.T, db *pgxpool.Pool) facts.Bucket {
		t.Helper()
		all, err := deals.Digest(t.Context(), db, span, time.Hour)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all[0]
	}
	want := digest(t, good(t))
	for name, change := range map[string]string{
		"other users":                  `UPDATE deals SET user_id = CASE user_id WHEN 'ada' THEN 'bob' ELSE 'ada' END`,
		"amounts that sum to the same": `UPDATE deals SET amount = 300 - amount`,
		"currencies":                   `UPDATE deals SET currency = CASE currency WHEN 'EUR' THEN 'USD' ELSE 'EUR' END`,
		"another quantity":             `UPDATE deals SET items = '[{"productId":"p-1","quantity":2}]' WHERE user_id = 'ada'`,
		"another product":              `UPDATE deals SET items = '[{"productId":"p-2","quantity":1}]' WHERE user_id = 'ada'`,
		"a line is lost":               `UPDATE deals SET items = items - 0 WHERE user_id = 'bob'`,
		"a line has no product":        `UPDATE deals SET items = '[{"quantity":1}]' WHERE user_id = 'ada'`,
		"no list":                      `UPDATE deals SET items = '{"productId":"p-1"}' WHERE user_id = 'ada'`,
		"nothing":                      `UPDATE deals SET items = 'null' WHERE user_id = 'ada'`,
	} {
		t.Run(name, func(t *testing.T) {
			db := good(t)
			if _, err := db.Exec(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			got := digest(t, db)
			if got.Count != want.Count || got.Hash != want.Hash || got.Agrees(want) || want.Agrees(got) {
				t.Errorf("%+v agrees with %+v", got, want)
			}
		})
	}
	db := good(t)
	if _, err := db.Exec(t.Context(), `UPDATE deals SET items = '[{"quantity":1,"productId":"p-2"},{"productId":"p-1","quantity":2}]' WHERE user_id = 'bob'`); err != nil {
		t.Fatal(err)
	}
	if got := digest(t, db); !got.Agrees(want) {
		t.Errorf("the same lines in another order: %+v, want %+v", got, want)
	}
	// A service of an earlier version does not say what it holds of its members.
	if earlier := (facts.Bucket{Count: want.Count, Hash: want.Hash}); !earlier.Agrees(want) || !want.Agrees(earlier) {
		t.Errorf("%+v does not agree with %+v", earlier, want)
	}
}
