package compare

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/rig"
)

// ordeal is a scenario of the comparison. What disturb does, it does to both designs alike.
type ordeal struct {
	name    string
	length  time.Duration
	disturb func(ctx context.Context, s *contender, length time.Duration) error
}

func (o *Options) ordeals() []ordeal {
	length := o.Length
	all := []ordeal{
		{"all well", length, func(context.Context, *contender, time.Duration) error { return nil }},
		{fmt.Sprintf("payment down for %.0f s", length.Seconds()), 2 * length, stopPayment},
		{"payment slow", length, slowPayment},
		{"payment slow, order killed", length, killOrder},
	}
	if o.Smoke { // these two need everything that the others do
		return []ordeal{all[1], all[3]}
	}
	return all
}

// stopPayment kills payment's process a quarter into the time, and starts it again after half of it.
func stopPayment(ctx context.Context, s *contender, length time.Duration) error {
	rig.Pause(ctx, length/4)
	s.processes["payment"].Kill()
	rig.Pause(ctx, length/2)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return s.restart(ctx, "payment")
}

// Every statement that inserts payments takes this much longer, with its transaction open and its connection in use. It
// is the same database and the same trigger for both designs: a call that charges one order waits as long as a batch
// that charges many.
const (
	slowness = 500 * time.Millisecond

	slowSQL = `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(%g); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER INSERT ON payments FOR EACH STATEMENT EXECUTE FUNCTION slow()`

	notSlowSQL = `DROP TRIGGER slow ON payments; DROP FUNCTION slow()`
)

// slowPayment makes payment slow for the whole time.
func slowPayment(ctx context.Context, s *contender, length time.Duration) error {
	return s.slowly(ctx, func() error { rig.Pause(ctx, length); return nil })
}

// supervised is how long a killed process is away before its supervisor starts it again.
const supervised = time.Second

// killOrder makes payment slow, and kills the order service in the middle of whatever it does. As many orders are on
// their way then as slowness gathers; of an order service that waits for nobody a crash would often hit none.
func killOrder(ctx context.Context, s *contender, length time.Duration) error {
	return s.slowly(ctx, func() error {
		began := time.Now()
		rig.Pause(ctx, length/2)
		s.processes["order"].Kill()
		rig.Pause(ctx, supervised)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.restart(ctx, "order"); err != nil {
			return err
		}
		rig.Pause(ctx, time.Until(began.Add(length)))
		return nil
	})
}

// slowly makes payment slow for as long as do takes.
func (s *contender) slowly(ctx context.Context, do func() error) error {
	db := s.databases["payment"]
	if _, err := db.Exec(ctx, fmt.Sprintf(slowSQL, slowness.Seconds()), pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("make payment slow: %w", err)
	}
	if err := do(); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, notSlowSQL, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("make payment fast again: %w", err)
	}
	return nil
}

// warm puts twice the load on a design, which is not measured, and waits until all is settled.
func (c *comparing) warm(ctx context.Context, s *contender, length time.Duration) error {
	w := newCustomers(s.processes["order"].Addr, c.opts.Seed, 1)
	defer w.close()
	w.come(ctx, driver.Evenly(2*c.opts.Rate, length), length)
	var err error
	s.before, err = s.rest(ctx, w.accepted())
	return err
}

// measure is one scenario: load, with the disturbance beside it, and the look at what it left.
func (c *comparing) measure(ctx context.Context, s *contender, sc ordeal) (Compared, error) {
	r := Compared{Scenario: sc.name, Design: s.design}
	customers := newCustomers(s.processes["order"].Addr, c.opts.Seed, 2)
	defer customers.close()
	g, beside := errgroup.WithContext(ctx)
	g.Go(func() error { return sc.disturb(beside, s, sc.length) })
	w := customers.come(beside, driver.Evenly(c.opts.Rate, sc.length), sc.length)
	if err := g.Wait(); err != nil {
		return r, err
	}
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	left, err := s.rest(ctx, customers.accepted())
	if err != nil {
		return r, err
	}
	settled, err := s.settled(ctx, w)
	if err != nil {
		return r, err
	}
	r.count(customers.visits, settled, w)
	r.Left = left.since(s.before).tally()
	if s.design == Synchronous {
		if err := s.reconcile(ctx); err != nil {
			return r, err
		}
		after, err := s.look(ctx, customers.accepted())
		if err != nil {
			return r, err
		}
		again := after.since(s.before).tally()
		r.Reconciled = &again
		left = after
	}
	s.before = left
	return r, rig.Alive(s.all)
}

// patience is how long at most nothing wrong is waited for.
const patience = time.Minute

// rest waits until nothing is wrong, or nothing has changed for a while, and returns what is wrong then.
func (s *contender) rest(ctx context.Context, accepted map[uuid.UUID]struct{}) (flaws, error) {
	var last flaws
	began := time.Now()
	since := began
	for {
		now, err := s.look(ctx, accepted)
		if err != nil || len(now.since(s.before)) == 0 {
			return now, err
		}
		if !now.equal(last) {
			last, since = now, time.Now()
		}
		if time.Since(since) > s.quiet || time.Since(began) > patience {
			return now, nil
		}
		rig.Pause(ctx, 500*time.Millisecond)
	}
}

const confirmedSQL = `SELECT id, settled_at FROM orders WHERE status = 'CONFIRMED' AND created_at >= $1`

// settled returns when each order of a load was confirmed, as the order database has it.
func (s *contender) settled(ctx context.Context, w driver.Window) (map[uuid.UUID]time.Time, error) {
	rows, _ := s.databases["order"].Query(ctx, confirmedSQL, w.From) // the error surfaces in the reader
	out := map[uuid.UUID]time.Time{}
	var id uuid.UUID
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { out[id] = at; return nil }); err != nil {
		return nil, fmt.Errorf("read when orders were confirmed: %w", err)
	}
	return out, nil
}
