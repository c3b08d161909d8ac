package facts_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

var things = facts.Source{
	Set: "kept", Table: "things", ID: "id", Member: "status = 'KEPT'", Open: "status = 'OPEN'", Amount: "amount",
	Facts: `SELECT id, status = 'KEPT', status, amount, 'EUR', changed_at, '', NULL::text, '' FROM things`,
}

func setup(t *testing.T) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "facts", func(ctx context.Context, db *pgxpool.Pool) error {
		_, err := db.Exec(ctx, `CREATE TABLE things (id uuid PRIMARY KEY, status text NOT NULL, amount bigint NOT NULL, changed_at timestamptz NOT NULL)`)
		return err
	})
}

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// idAt is the n-th id of a second after noon.
func idAt(second, n int) uuid.UUID {
	id := facts.FirstOf(noon.Add(time.Duration(second) * time.Second))
	copy(id[6:], fmt.Sprintf("\x70\x00\x80\x00\x00\x00\x00\x00%02d", n))
	return id
}

func put(t *testing.T, db *pgxpool.Pool, id uuid.UUID, status string, amount int64) {
	t.Helper()
	if _, err := db.Exec(t.Context(), `INSERT INTO things VALUES ($1, $2, $3, $4)`, id, status, amount, noon); err != nil {
		t.Fatal(err)
	}
}

// A digest says of each span how many members there are, which, and what they amount to; and counts what else is there.
func TestDigest(t *testing.T) {
	db := setup(t)
	a, b, c := idAt(0, 1), idAt(59, 2), idAt(60, 3)
	put(t, db, c, "KEPT", 300)
	put(t, db, a, "KEPT", 100)
	put(t, db, b, "KEPT", 200)
	put(t, db, idAt(61, 4), "OPEN", 1)
	put(t, db, idAt(62, 5), "GONE", 1)
	put(t, db, idAt(120, 6), "KEPT", 1) // outside
	got, err := things.Digest(t.Context(), db, facts.Between(noon, noon.Add(2*time.Minute)), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want := []facts.Bucket{
		{Start: noon.UnixMilli(), Rows: 2, Count: 2, Hash: facts.Hex(facts.HashOf(b) ^ facts.HashOf(a)), Amount: 300},
		{Start: noon.Add(time.Minute).UnixMilli(), Rows: 3, Count: 1, Hash: facts.Hex(facts.HashOf(c)), Amount: 300, Open: 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("digest (-want +got):\n%s", diff)
	}
}

// The hash is what others can compute: the first eight bytes of SHA-256 (FIPS 180-4) of the id.
func TestHash(t *testing.T) {
	if got, want := facts.Hex(facts.HashOf(uuid.Nil)), "374708fff7719dd5"; got != want {
		t.Errorf("hash of the nil UUID %s, want %s", got, want)
	}
}

// Of one member in the place of another, the count tells nothing and the hash does.
func TestDigestTellsMembersApart(t *testing.T) {
	a, b := setup(t), setup(t)
	put(t, a, idAt(0, 1), "KEPT", 1)
	put(t, b, idAt(0, 2), "KEPT", 1)
	span := facts.Between(noon, noon.Add(time.Hour))
	da, err1 := things.Digest(t.Context(), a, span, time.Hour)
	db, err2 := things.Digest(t.Context(), b, span, time.Hour)
	if err1 != nil || err2 != nil || len(da) != 1 || len(db) != 1 {
		t.Fatal(da, err1, db, err2)
	}
	if da[0].Agrees(db[0]) || !da[0].Agrees(da[0]) {
		t.Errorf("%+v and %+v", da[0], db[0])
	}
}

func TestListAndGet(t *testing.T) {
	db := setup(t)
	ids := []uuid.UUID{idAt(0, 1), idAt(0, 2), idAt(1, 1), idAt(2, 1)}
	for i, id := range ids {
		put(t, db, id, "KEPT", int64(i))
	}
	of := func(found []facts.Fact, err error) (got []uuid.UUID) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if !f.Member || f.Status != "KEPT" || !f.ChangedAt.Equal(noon) {
				t.Errorf("fact %+v", f)
			}
			got = append(got, f.ID)
		}
		return got
	}
	if diff := cmp.Diff(ids[:3], of(things.List(t.Context(), db, facts.Span{From: ids[0], To: ids[3]}, 10))); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids[:2], of(things.List(t.Context(), db, facts.Span{To: uuid.Max}, 2))); diff != "" {
		t.Errorf("first page (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids[2:3], of(things.Get(t.Context(), db, ids[2], idAt(9, 9)))); diff != "" {
		t.Errorf("get (-want +got):\n%s", diff)
	}
}

func TestAudit(t *testing.T) {
	db := setup(t)
	put(t, db, idAt(0, 1), "KEPT", -5)
	put(t, db, idAt(0, 2), "KEPT", 5)
	found, err := facts.Audit(t.Context(), db, []facts.Rule{{Kind: "below-zero", SQL: `SELECT id::text, 'amount ' || amount FROM things WHERE amount < 0 LIMIT $1`}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]facts.Breach{{Kind: "below-zero", Subject: idAt(0, 1).String(), Detail: "amount -5"}}, found); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func TestTimes(t *testing.T) {
	if got := facts.TimeOf(facts.FirstOf(noon)); !got.Equal(noon) {
		t.Errorf("time of the first id of %s: %s", noon, got)
	}
}
