package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// running is a system with its driver.
type running struct {
	mode      Mode
	name      string     // what begins the names of its profiles
	launch    rig.Launch // that started it
	servers   servers
	processes []*rig.Process
	databases databases
	driver    *driver
}

// measureAll runs the scenarios one after the other.
func (b *bench) measureAll(ctx context.Context, r *running, scenarios []Scenario, run *ModeRun) error {
	b.say("placing the first order")
	began := time.Now()
	if _, err := r.driver.closed(ctx, 1, time.Millisecond); err != nil {
		return fmt.Errorf("the first order: %w", err)
	}
	if _, err := r.driver.failed(); err != nil {
		return fmt.Errorf("the first order: %w", err)
	}
	run.FirstOrderSeconds = time.Since(began).Seconds()
	b.say("warming up")
	if err := b.warmUp(ctx, r); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}

	for _, sc := range scenarios {
		b.say("%s", sc)
		result, err := b.measure(ctx, r, sc)
		if err != nil {
			return fmt.Errorf("%s: %w", sc, err)
		}
		run.Results = append(run.Results, result)
		b.say("  %s", result.line())
	}
	return nil
}

// measure warms up, runs one scenario between two looks at all counters, and verifies.
func (b *bench) measure(ctx context.Context, r *running, sc Scenario) (Result, error) {
	res := Result{Scenario: sc.String()}
	if sc.Kind != Idle {
		if _, err := b.load(ctx, r, sc.warmUp(b.opts.Warmup), nil); err != nil {
			return res, fmt.Errorf("warm-up: %w", err)
		}
		r.driver.tracker.take()
		_, _ = r.driver.failed() // the warm-up's own
	} else {
		pause(ctx, 2*time.Second) // what the last load left to do
	}
	before, err := r.look(ctx, true)
	if err != nil {
		return res, err
	}
	profiles := r.profile(ctx, b.opts.Dir, r.name+sc.String(), sc.profiled())
	w, loadErr := b.load(ctx, r, sc, &res)
	if ctx.Err() != nil {
		return res, ctx.Err()
	}
	after, err := r.look(ctx, false)
	if err != nil {
		return res, err
	}
	if res.Profiles, err = profiles(); err != nil {
		return res, err
	}
	if loadErr != nil {
		res.Violations = append(res.Violations, loadErr.Error())
	}
	samples := r.driver.tracker.take()
	res.latencies(samples, w)
	res.Disturbances = disturbances(samples, res.marks, w.to)
	if failures, example := r.driver.failed(); failures > 0 {
		res.Failures, res.Failure = failures, example.Error()
	}
	res.difference(before, after)
	if res.Stored, err = r.stored(ctx, w); err != nil {
		return res, err
	}
	if res.PeakMiB, err = r.peakMemory(); err != nil {
		return res, err
	}
	t := r.driver.tracker
	wrong, err := verify(ctx, r.databases, promised{acked: t.acked, unknown: t.unknown, stock: stock}, settleTimeout)
	res.Violations = append(res.Violations, wrong...)
	return res, errors.Join(err, rig.Alive(r.processes))
}

// load runs the scenario. What only its kind measures goes into res.
func (b *bench) load(ctx context.Context, r *running, sc Scenario, res *Result) (w window, err error) {
	switch sc.Kind {
	case Closed:
		if sc.Orders > 0 {
			return r.driver.closedOrders(ctx, int(sc.N), sc.Orders, func(int) {})
		}
		return r.driver.closed(ctx, int(sc.N), sc.Length)
	case Flood:
		return r.driver.flood(ctx, sc)
	case Rebalance:
		w, res.marks, err = b.rebalance(ctx, r, sc)
		return w, err
	case Memory:
		w, res.Memory, err = r.memory(ctx, sc)
		return w, err
	case Open:
		schedule := evenly(sc.N, sc.Length)
		if !b.opts.Even {
			rnd := rand.New(rand.NewPCG(b.opts.Seed, uint64(sc.Length)))
			schedule = independently(rnd, sc.N, sc.Length)
		}
		return r.driver.open(ctx, schedule, sc.Length)
	default:
		from := time.Now()
		pause(ctx, sc.Length)
		return window{from, time.Now()}, nil
	}
}
