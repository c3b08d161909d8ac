package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/rig"
)

// Disturbance is what one event of a rebalance scenario came to, until the next.
type Disturbance struct {
	Event        string  `json:"event"`
	At           float64 `json:"atSeconds"` // since the load began
	Orders       int     `json:"orders"`    // that settled
	LongestPause float64 `json:"longestPauseSeconds"`
	LongestOrder float64 `json:"longestOrderSeconds"`
}

// The events of a rebalance scenario.
const (
	steady = "none yet"
	joined = "an instance of each joins"
	left   = "it leaves"
	rejoin = "another joins"
	killed = "it is killed, and started again"
)

// mark is when an event began.
type mark struct {
	event string
	at    time.Time
}

// rebalance puts an open load on the system while instances come and go. Its orders go to the instances that stay: what is
// measured is what the consumer groups make of it, and not how HTTP clients meet a server that is gone.
func (b *bench) rebalance(ctx context.Context, r *running, sc Scenario) (window, []mark, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rnd := rand.New(rand.NewPCG(b.opts.Seed, uint64(sc.Length)))
	var g errgroup.Group
	var w window
	began := time.Now()
	marks := []mark{{steady, began}}
	g.Go(func() (err error) {
		w, err = r.driver.open(ctx, independently(rnd, sc.N, sc.Length), sc.Length)
		return err
	})
	g.Go(func() error {
		err := r.comeAndGo(ctx, began, sc.Length, func(event string) { marks = append(marks, mark{event, time.Now()}) })
		if err != nil {
			cancel() // what the load would show is of no use any more
		}
		return err
	})
	err := g.Wait()
	return w, marks, err
}

// comeAndGo starts a second instance of every service and stops it, starts one more, kills it and starts it again under the
// same instance id, at the eighths of the length that leave time to see what each does.
func (r *running) comeAndGo(ctx context.Context, began time.Time, length time.Duration, tell func(event string)) error {
	at := func(eighths int, event string) error {
		pause(ctx, time.Until(began.Add(length*time.Duration(eighths)/8)))
		if ctx.Err() == nil {
			tell(event)
		}
		return ctx.Err()
	}
	if err := at(1, joined); err != nil {
		return err
	}
	more := r.launch
	more.First, more.Instances = r.launch.Instances, 1
	second, err := more.Start(ctx)
	if err == nil {
		err = at(3, left)
	}
	if _, stopErr := rig.Stop(second); err != nil || stopErr != nil {
		return errors.Join(err, stopErr)
	}
	if err := at(5, rejoin); err != nil {
		return err
	}
	more.First++
	third, err := more.Start(ctx)
	if err == nil {
		err = at(6, killed)
	}
	for _, p := range third {
		p.Kill()
	}
	if err != nil {
		return err
	}
	again, err := more.Start(ctx)
	if err == nil {
		pause(ctx, time.Until(began.Add(length)))
	}
	_, stopErr := rig.Stop(again)
	return errors.Join(err, stopErr)
}

// disturbances tells for each event how long nothing settled at most before the next one, and how long any order took that
// settled then: one that two events met counts for the later.
func disturbances(samples []sample, marks []mark, end time.Time) []Disturbance {
	out := make([]Disturbance, len(marks))
	for i, m := range marks {
		until := end
		if i+1 < len(marks) {
			until = marks[i+1].at
		}
		d := Disturbance{Event: m.event, At: m.at.Sub(marks[0].at).Seconds()}
		settled := []time.Time{m.at, until}
		for _, s := range samples {
			if s.settled.IsZero() {
				continue
			}
			last := i == len(marks)-1 // to it belongs what settles after the load, too
			if !s.settled.Before(m.at) && (last || s.settled.Before(until)) {
				d.LongestOrder = max(d.LongestOrder, s.settled.Sub(s.sent).Seconds())
			}
			if !s.settled.Before(m.at) && s.settled.Before(until) {
				d.Orders++
				settled = append(settled, s.settled)
			}
		}
		d.LongestPause = longestGap(settled).Seconds()
		out[i] = d
	}
	return out
}

// longestGap sorts the times and returns the longest one between two of them.
func longestGap(times []time.Time) time.Duration {
	slices.SortFunc(times, time.Time.Compare)
	var longest time.Duration
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}
