package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/report"
	"github.com/converge-dev/converge/lab/bench/verify"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
)

// measureAll runs the scenarios one after the other.
func (b *bench) measureAll(ctx context.Context, r *running, scenarios []plan.Scenario, run *report.ModeRun) error {
	b.say("placing the first order")
	began := time.Now()
	if _, err := r.driver.Closed(ctx, 1, time.Millisecond); err != nil {
		return fmt.Errorf("the first order: %w", err)
	}
	if _, err := r.driver.Failed(); err != nil {
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
		b.say("  %s", result.Line())
	}
	return nil
}

// measure warms up, runs one scenario between two looks at all counters, and verifies.
func (b *bench) measure(ctx context.Context, r *running, sc plan.Scenario) (report.Result, error) {
	res := report.Result{Scenario: sc.String()}
	if sc.Kind != plan.Idle {
		if _, err := b.load(ctx, r, sc.WarmUp(b.opts.Warmup)); err != nil {
			return res, fmt.Errorf("warm-up: %w", err)
		}
		r.driver.Tracker.Take()
		_, _ = r.driver.Failed() // the warm-up's own
	} else {
		rig.Pause(ctx, 2*time.Second) // what the last load left to do
	}
	before, err := r.Look(ctx, true)
	if err != nil {
		return res, err
	}
	profiles := r.Profile(ctx, b.opts.Dir, r.name+sc.String(), sc.Profiled())
	load, loadErr := b.load(ctx, r, sc)
	if ctx.Err() != nil {
		return res, ctx.Err()
	}
	after, err := r.Look(ctx, false)
	if err != nil {
		return res, err
	}
	if res.Profiles, err = profiles(); err != nil {
		return res, err
	}
	if loadErr != nil {
		res.Violations = append(res.Violations, loadErr.Error())
	}
	samples := r.driver.Tracker.Take()
	res.Latencies(samples, load.window)
	res.Memory = load.memory
	res.Disturbances = measure.Disturbances(samples, load.marks, load.window.To)
	if failures, example := r.driver.Failed(); failures > 0 {
		res.Failures, res.Failure = failures, example.Error()
	}
	res.Used(after.Since(before, res.Orders))
	if res.Stored, err = r.Stored(ctx, load.window); err != nil {
		return res, err
	}
	if res.PeakMiB, err = r.PeakMemory(); err != nil {
		return res, err
	}
	t := r.driver.Tracker
	wrong, err := verify.Settled(ctx, r.Databases, verify.Promised{Acked: t.Acked, Unknown: t.Unknown, Stock: workload.Stock}, driver.SettleTimeout)
	res.Violations = append(res.Violations, wrong...)
	return res, errors.Join(err, rig.Alive(r.Processes))
}

// loaded is a load that is over, with what only its kind measures.
type loaded struct {
	window driver.Window
	marks  []measure.Mark
	memory []measure.MemoryPoint
}

// load runs the scenario.
func (b *bench) load(ctx context.Context, r *running, sc plan.Scenario) (l loaded, err error) {
	switch sc.Kind {
	case plan.Closed:
		if sc.Orders > 0 {
			l.window, err = r.driver.ClosedOrders(ctx, int(sc.N), sc.Orders, func(int) {})
			return l, err
		}
		l.window, err = r.driver.Closed(ctx, int(sc.N), sc.Length)
	case plan.Flood:
		l.window, err = r.driver.Flood(ctx, int(sc.N), sc.Length, sc.Orders)
	case plan.Rebalance:
		l.window, l.marks, err = b.rebalance(ctx, r, sc)
	case plan.Memory:
		l.window, l.memory, err = r.memory(ctx, sc)
	case plan.Open:
		schedule := driver.Evenly(sc.N, sc.Length)
		if !b.opts.Even {
			rnd := rand.New(rand.NewPCG(b.opts.Seed, uint64(sc.Length)))
			schedule = driver.Independently(rnd, sc.N, sc.Length)
		}
		l.window, err = r.driver.Open(ctx, schedule, sc.Length)
	default:
		from := time.Now()
		rig.Pause(ctx, sc.Length)
		l.window = driver.Window{From: from, To: time.Now()}
	}
	return l, err
}

// memory takes so many orders through and watches what the services keep.
func (r *running) memory(ctx context.Context, sc plan.Scenario) (driver.Window, []measure.MemoryPoint, error) {
	var series measure.MemorySeries
	series.Take(r.Processes, 0)
	step := max(1, sc.Orders/4)
	w, err := r.driver.ClosedOrders(ctx, int(sc.N), sc.Orders, func(placed int) {
		if placed%step == 0 {
			series.Take(r.Processes, placed)
		}
	})
	points, failed := series.Points()
	return w, points, cmp.Or(err, failed)
}
