package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/rig"
)

// rebalance puts an open load on the system while instances come and go. Its orders go to the instances that stay: what
// is measured is what the consumer groups make of it, and not how HTTP clients meet a server that is gone.
func (b *bench) rebalance(ctx context.Context, r *running, sc plan.Scenario) (driver.Window, []measure.Mark, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rnd := rand.New(rand.NewPCG(b.opts.Seed, uint64(sc.Length)))
	var g errgroup.Group
	var w driver.Window
	began := time.Now()
	marks := []measure.Mark{{Event: measure.Steady, At: began}}
	g.Go(func() (err error) {
		w, err = r.driver.Open(ctx, driver.Independently(rnd, sc.N, sc.Length), sc.Length)
		return err
	})
	g.Go(func() error {
		err := r.comeAndGo(ctx, began, sc.Length, func(event string) { marks = append(marks, measure.Mark{Event: event, At: time.Now()}) })
		if err != nil {
			cancel() // what the load would show is of no use any more
		}
		return err
	})
	err := g.Wait()
	return w, marks, err
}

// comeAndGo starts a second instance of every service and stops it, starts one more, kills it and starts it again under
// the same instance id, at the eighths of the length that leave time to see what each does.
func (r *running) comeAndGo(ctx context.Context, began time.Time, length time.Duration, tell func(event string)) error {
	at := func(eighths int, event string) error {
		rig.Pause(ctx, time.Until(began.Add(length*time.Duration(eighths)/8)))
		if ctx.Err() == nil {
			tell(event)
		}
		return ctx.Err()
	}
	if err := at(1, measure.Joined); err != nil {
		return err
	}
	more := r.launch
	more.First, more.Instances = r.launch.Instances, 1
	second, err := more.Start(ctx)
	if err == nil {
		err = at(3, measure.Left)
	}
	if _, stopErr := rig.Stop(second); err != nil || stopErr != nil {
		return errors.Join(err, stopErr)
	}
	if err := at(5, measure.Rejoin); err != nil {
		return err
	}
	more.First++
	third, err := more.Start(ctx)
	if err == nil {
		err = at(6, measure.Killed)
	}
	for _, p := range third {
		p.Kill()
	}
	if err != nil {
		return err
	}
	again, err := more.Start(ctx)
	if err == nil {
		rig.Pause(ctx, time.Until(began.Add(length)))
	}
	_, stopErr := rig.Stop(again)
	return errors.Join(err, stopErr)
}
