package report

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/converge-dev/converge/lab/bench/markdown"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// Judge holds what was measured against the aims. What was not measured is left out.
func (r *Report) Judge() {
	r.Aims = nil
	aim := func(what, unit string, atLeast bool, want, measured float64) {
		if math.IsNaN(measured) {
			return
		}
		met := measured <= want
		if atLeast {
			met = measured >= want
		}
		r.Aims = append(r.Aims, Aim{what, unit, atLeast, want, measured, met})
	}
	converge, naive, floor := r.base(plan.Converge), r.base(plan.Naive), r.base(plan.SQLFloor)
	of := func(run *ModeRun, scenario string, value func(*Result) float64) float64 {
		if res := run.result(scenario); res != nil {
			return value(res)
		}
		return math.NaN()
	}
	rate := func(s *Result) float64 { return s.OrdersPerSecond }

	aim("flood:64, to terminal state", " orders/s", true, 6500, of(converge, "flood:64", rate))
	aim("closed:64, to terminal state", " orders/s", true, 6500, of(converge, "closed:64", rate))
	for _, open := range []struct {
		scenario string
		p50, p99 float64
	}{{"open:100", 4, 10}, {"open:500", 8, 40}} {
		aim(open.scenario+", stored p50", " ms", false, open.p50, of(converge, open.scenario, func(s *Result) float64 { return s.Stored.P50 }))
		aim(open.scenario+", stored p99", " ms", false, open.p99, of(converge, open.scenario, func(s *Result) float64 { return s.Stored.P99 }))
	}
	aim("open:500, ack p99", " ms", false, 10, of(converge, "open:500", func(s *Result) float64 { return s.Ack.P99 }))
	aim("idle, the busiest service", " % of a core", false, 1, of(converge, "idle", func(s *Result) float64 { return 100 * worst(s.Cores) }))
	better := func(run *ModeRun) float64 { // of what was measured
		flood, closed := of(run, "flood:64", rate), of(run, "closed:64", rate)
		if math.IsNaN(flood) || closed > flood {
			return closed
		}
		return flood
	}
	best := better(converge)
	aim("against the usual way, orders/s, the better of closed and flood each", " ×", true, 9,
		best/better(naive))
	aim("of the floor in batches of 64, orders/s", " %", true, 65, 100*best/of(floor, "batches of 64", rate))
	aim("peak memory, the largest instance", " MiB", false, 150, r.peak())
	pause := func(d measure.Disturbance) float64 { return d.LongestPause }
	order := func(d measure.Disturbance) float64 { return d.LongestOrder }
	planned := []string{measure.Joined, measure.Left, measure.Rejoin}
	aim("longest without an order settled when instances join or leave", " s", false, 0.3,
		of(converge, "rebalance", longest(pause, planned...)))
	aim("longest that any order took when instances join or leave", " s", false, 3,
		of(converge, "rebalance", longest(order, planned...)))
	// Not the pause: the instances that stay settle orders all the while, whatever becomes of the dead one's
	// partitions.
	aim("longest that any order took when one is killed and started again", " s", false, 1.5,
		of(converge, "rebalance", longest(order, measure.Killed)))
	for _, curve := range []string{plan.ByStored, plan.ByInstances} {
		worse, p99 := r.slope(curve)
		aim(curve+", orders/s of closed:64, the worst against the first", " %", true, 90, worse)
		aim(curve+", p99 of open:500, the worst against the first", " %", false, 110, p99)
	}
}

// peak is the most memory that an instance of any service had in any of the system's runs.
func (r *Report) peak() float64 {
	peak := math.NaN()
	for _, run := range r.Runs {
		for _, s := range run.Results {
			if run.Mode == plan.Converge {
				peak = math.Max(worst(s.PeakMiB), orZero(peak))
			}
		}
	}
	return peak
}

// orZero is 0 for what is not known yet.
func orZero(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// worst is the largest value of a service.
func worst(by map[string]float64) float64 {
	most := 0.0
	for _, service := range workload.Services {
		most = max(most, by[service])
	}
	return most
}

// longest is the most that any of these events of a rebalance scenario cost.
func longest(cost func(measure.Disturbance) float64, events ...string) func(*Result) float64 {
	return func(s *Result) float64 {
		most := math.NaN()
		for _, d := range s.Disturbances {
			if slices.Contains(events, d.Event) {
				most = max(orZero(most), cost(d))
			}
		}
		return most
	}
}

// slope is how a curve's worst values compare with its first, in per cent.
func (r *Report) slope(curve string) (orders, p99 float64) {
	runs := r.curve(curve)
	orders, p99 = math.NaN(), math.NaN()
	for i := range runs[min(1, len(runs)):] {
		if first, s := runs[0].result("closed:64"), runs[i+1].result("closed:64"); first != nil && s != nil {
			v := 100 * s.OrdersPerSecond / first.OrdersPerSecond
			if math.IsNaN(orders) || v < orders {
				orders = v
			}
		}
		if first, s := runs[0].result("open:500"), runs[i+1].result("open:500"); first != nil && s != nil {
			p99 = max(orZero(p99), 100*s.EndToEnd.P99/first.EndToEnd.P99)
		}
	}
	return orders, p99
}

func (r *Report) printAims(w io.Writer) {
	if len(r.Aims) == 0 {
		return
	}
	title := "Aims."
	if r.Options.Smoke {
		title = "Aims. This run only shows that everything works: a second of each load says nothing about any of them."
	}
	markdown.Table(w, title, "what", "aim", "measured", "")
	for _, a := range r.Aims {
		sign, met := "≤", "not met"
		if a.AtLeast {
			sign = "≥"
		}
		if a.Met {
			met = "met"
		}
		digits := 1
		if a.Unit == " s" { // an aim of tenths of a second
			digits = 2
		}
		markdown.Row(w, a.What, fmt.Sprintf("%s %g%s", sign, a.Want, a.Unit), markdown.Num(a.Measured, digits)+a.Unit, met)
	}
}
