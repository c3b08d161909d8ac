package order

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/facts"
)

// rowsRead is how many orders a walk's statement reads, from its place up to now, and by which index.
func rowsRead(t *testing.T, db *pgxpool.Pool, s *sweeper, w *walk) (rows float64, index string) {
	t.Helper()
	var text []byte
	until := facts.FirstOf(s.commands.now().Add(-w.age))
	if err := db.QueryRow(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+overdueSQL, w.after, until, s.rows).Scan(&text); err != nil {
		t.Fatal(err)
	}
	type node struct {
		Rows  float64 `json:"Actual Rows"`
		Index string  `json:"Index Name"`
		Table string  `json:"Relation Name"`
		Plans []node
	}
	var explained []struct{ Plan node }
	if err := json.Unmarshal(text, &explained); err != nil {
		t.Fatal(err)
	}
	for n := explained[0].Plan; ; n = n.Plans[0] {
		if n.Table == "orders" {
			return n.Rows, n.Index
		}
	}
}

// placedAt stores orders that were placed one millisecond after the other.
func (c client) placedAt(t *testing.T, began time.Time, n int) {
	t.Helper()
	for i := range n {
		p := newPosting(t.Context(), Draft{UserID: "u-1", Items: []Item{{"p-1", 1}}, Amount: 1, Currency: "EUR"}, "", began)
		p.order.ID = facts.FirstOf(began.Add(time.Duration(i) * time.Millisecond))
		if _, err := c.placer.place(t.Context(), []posting{p}); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that starts goes on from where another was, and reads what has come since, not what is stored.
func TestSweeperKeepsItsPlace(t *testing.T) {
	t.Parallel()
	c := setup(t)
	began := clock.Now().Add(-24 * time.Hour)
	c.placedAt(t, began, 50)
	first := newSweeper(c.commands, deadline, nil)
	first.rows = 20
	if n := c.sweep(t, first); n != 50 {
		t.Fatalf("%d orders are cancelled, want all", n)
	}

	c.placedAt(t, clock.Now(), 1)
	c.set(clock.Now().Add(deadline + time.Second))
	again := newSweeper(c.commands, deadline, nil)
	if err := again.resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, w := range again.walks {
		want := map[string]float64{"first": 1, "late": 0}[w.name]
		if rows, index := rowsRead(t, c.db, again, w); rows != want || index != "orders_pkey" {
			t.Errorf("the walk %q reads %v orders by %q when it starts again, want %v of 51", w.name, rows, index, want)
		}
	}
	if n := c.sweep(t, again); n != 1 {
		t.Errorf("%d orders are cancelled, want the one that has come of age since", n)
	}
}

// Whose clock is ahead takes nobody along: what it has passed before its time is looked at by others when it comes of
// age.
func TestSweeperWithAClockAhead(t *testing.T) {
	t.Parallel()
	c := setup(t)
	c.set(clock.Now().Add(3 * time.Hour))
	c.sweep(t, newSweeper(c.commands, deadline, nil))
	c.placedAt(t, clock.Now(), 1)

	c.set(clock.Now().Add(deadline + time.Second))
	if n := c.sweep(t, newSweeper(c.commands, deadline, nil)); n != 1 {
		t.Errorf("%d orders are cancelled, want the one that an hour ahead was not there yet", n)
	}
}
