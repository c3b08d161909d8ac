package order

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
)

const (
	sweepEvery    = 5 * time.Second
	sliceRows     = 10_000 // looked at in one statement
	expiredAtOnce = 500    // orders in one transaction: what it locks stays small

	// lateness is how long after its id was made an order may be committed and still be found. A request and its commit
	// end within a minute; the rest is for processes that stood still in between and for instances whose clocks are
	// behind.
	lateness = time.Hour
)

// sweeper commands the orders that have been PENDING for longer than the deadline. Several instances may run: who comes
// second finds nothing to do.
//
// Status is in no index, so that settling an order stays cheap. But ids are in the order of time, and each order has to
// be looked at only once, when it comes of age: the sweeper walks the ids from where it was, which it keeps in the
// database (sweeps.go). A process that starts goes on from there; the first one of all looks at all orders once.
//
// Rows do not become visible in the order of their ids: one may be committed after the walk has passed its id. Hence a
// second walk, lateness behind the first. The first is there so that nobody has to wait for it.
//
// An order's age is the difference of two clocks: that of who placed it and that of who sweeps. An instance whose clock
// is wrong by as much as the deadline commands what is young; that is a nuisance, and the books balance all the same.
type sweeper struct {
	commands *commands
	log      *slog.Logger
	walks    []*walk
	rows     int  // of a slice
	placed   bool // the walks have been told where to begin
}

// walk is a way through the orders of an age, in the order of their ids.
type walk struct {
	name   string
	age    time.Duration
	after  uuid.UUID // all up to here was looked at
	stored uuid.UUID // what of that the database knows
}

func newSweeper(c *commands, deadline time.Duration, log *slog.Logger) *sweeper {
	late := deadline + lateness
	return &sweeper{
		commands: c, log: cmp.Or(log, slog.New(slog.DiscardHandler)), rows: sliceRows,
		walks: []*walk{{name: "first", age: deadline}, {name: "late", age: late, after: facts.FirstOf(c.now().Add(-late))}},
	}
}

// run sweeps until ctx ends, and then returns nil. After a fault the next sweep goes on from there.
func (s *sweeper) run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if n, err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "orders past their deadline not cancelled, trying again later", "cancelled", n, "error", err)
		} else if n > 0 {
			s.log.InfoContext(ctx, "orders cancelled that were past their deadline", "cancelled", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep commands what is past the deadline now.
func (s *sweeper) sweep(ctx context.Context) (cancelled int, err error) {
	if err := s.resume(ctx); err != nil {
		return 0, err
	}
	for _, w := range s.walks {
		n, err := s.walk(ctx, w)
		cancelled += n
		if err != nil {
			return cancelled, err
		}
	}
	return cancelled, nil
}

// walk goes on to the youngest order of the walk's age, slice by slice. It moves on when a slice is done with.
func (s *sweeper) walk(ctx context.Context, w *walk) (cancelled int, err error) {
	until := facts.FirstOf(s.commands.now().Add(-w.age))
	for bytes.Compare(w.after[:], until[:]) < 0 {
		pending, next, err := overdue(ctx, s.commands.db, w.after, until, s.rows)
		if err != nil {
			return cancelled, err
		}
		for some := range slices.Chunk(pending, expiredAtOnce) {
			n, err := s.commands.expire(ctx, some)
			cancelled += n
			if err != nil {
				return cancelled, err
			}
		}
		w.after = next
		if err := w.keep(ctx, s.commands.db); err != nil {
			return cancelled, err
		}
	}
	return cancelled, nil
}

// overdue looks at the first orders between two ids, so many rows at most. It returns those that are PENDING, and the
// id up to which it has looked.
func overdue(ctx context.Context, db *pgxpool.Pool, after, until uuid.UUID, rows int) (found []uuid.UUID, next uuid.UUID, err error) {
	var id uuid.UUID
	var pending, edge bool
	next = until
	slice, _ := db.Query(ctx, overdueSQL, after, until, rows) // the error surfaces in the reader
	_, err = pgx.ForEachRow(slice, []any{&id, &pending, &edge}, func() error {
		if pending {
			found = append(found, id)
		}
		if edge {
			next = id
		}
		return nil
	})
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("look for orders past their deadline: %w", err)
	}
	return found, next, nil
}
