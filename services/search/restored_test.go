package search

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
)

// An older copy of profile's database was restored, and nobody said so: versions 4 and 5 exist twice. What was told
// last is what is found, one by one, in one batch, and by a rebuild, which reads everything again into another
// generation; what is older changes nothing.
func TestOfEqualVersionsTheLaterIsFound(t *testing.T) {
	t.Parallel()
	told := func(t *testing.T) []broker.Record {
		return []broker.Record{
			user(t, "ada", 3, "Three", ""), user(t, "ada", 4, "Lostfour", ""), user(t, "ada", 5, "Lostfive", ""),
			user(t, "ada", 4, "Newfour", ""), user(t, "ada", 5, "Newfive", ""),
		}
	}
	found := func(t *testing.T, b bundle) {
		t.Helper()
		if _, got := b.get("q=newfive"); got != "user ada v5" {
			t.Errorf("the later version 5 is not found, but %q", got)
		}
		if _, got := b.get("q=lostfive"); got != "" {
			t.Errorf("the lost version 5 is found: %q", got)
		}
	}
	t.Run("one by one", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		for _, r := range told(t) {
			b.deliver(r)
		}
		found(t, b)
	})
	t.Run("in one batch", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		b.deliver(told(t)...)
		found(t, b)
	})
	t.Run("by a rebuild", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		docs := []Document{
			{Kind: User, ID: "ada", Version: 5, Title: "Lostfive"}, {Kind: User, ID: "ada", Version: 4, Title: "Newfour"}, {Kind: User, ID: "ada", Version: 5, Title: "Newfive"},
		}
		err := pg.InTx(t.Context(), b.db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO generations (id, state) OVERRIDING SYSTEM VALUE VALUES (77, 'BUILDING')`); err != nil {
				return err
			}
			for _, d := range docs {
				if err := save(t.Context(), tx, 77, newest([]Document{d})); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(t.Context(), `UPDATE generations SET state = 'RETIRED' WHERE state = 'SERVING'`); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `UPDATE generations SET state = 'SERVING' WHERE id = 77`)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		found(t, b)
	})
}
