package order

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
)

// keepPlaceEvery is how much of the orders' time a walk goes on before its place is stored anew. What is walked again
// after a stop is as much.
const keepPlaceEvery = time.Minute

// resume has the walks go on from where those of any process were, once. Until it is known where, nothing is swept.
func (s *sweeper) resume(ctx context.Context) error {
	if s.placed {
		return nil
	}
	byName, names, ages := map[string]*walk{}, []string(nil), []time.Duration(nil)
	for _, w := range s.walks {
		byName[w.name], names, ages = w, append(names, w.name), append(ages, w.age)
	}
	var name string
	var upto time.Time
	rows, _ := s.commands.db.Query(ctx, readSweepsSQL, names, ages) // the error surfaces in the reader
	_, err := pgx.ForEachRow(rows, []any{&name, &upto}, func() error {
		w := byName[name]
		w.after = facts.FirstOf(upto)
		w.stored = w.after
		return nil
	})
	if err != nil {
		return fmt.Errorf("read how far orders were looked at for their deadline: %w", err)
	}
	s.placed = true
	return nil
}

// keep stores the walk's place, now and then.
func (w *walk) keep(ctx context.Context, db *pgxpool.Pool) error {
	upto := facts.TimeOf(w.after)
	if upto.Sub(facts.TimeOf(w.stored)) < keepPlaceEvery {
		return nil
	}
	if _, err := db.Exec(ctx, keepSweepSQL, w.name, upto, w.age); err != nil {
		return fmt.Errorf("store how far orders were looked at for their deadline: %w", err)
	}
	w.stored = w.after
	return nil
}
