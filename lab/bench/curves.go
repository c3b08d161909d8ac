package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/converge-dev/converge/lab/rig"
)

// MemoryPoint is what one instance of each service had resident after so many orders, in MiB.
type MemoryPoint struct {
	Orders int                `json:"orders"`
	MiB    map[string]float64 `json:"mib"`
}

// memorySeries takes a point before the first order and after every quarter of them.
type memorySeries struct {
	mu     sync.Mutex
	points []MemoryPoint
	err    error
}

func (m *memorySeries) take(processes []*rig.Process, orders int) {
	point := MemoryPoint{Orders: orders, MiB: map[string]float64{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range processes {
		mib, err := rig.ResidentMiB(p.PID())
		if err != nil {
			m.err = fmt.Errorf("memory of %s: %w", p.Service, err)
		}
		point.MiB[p.Service] = max(point.MiB[p.Service], mib)
	}
	m.points = append(m.points, point)
}

// memory takes so many orders through and watches what the services keep.
func (r *running) memory(ctx context.Context, sc Scenario) (window, []MemoryPoint, error) {
	var series memorySeries
	series.take(r.processes, 0)
	step := max(1, sc.Orders/4)
	w, err := r.driver.closedOrders(ctx, int(sc.N), sc.Orders, func(placed int) {
		if placed%step == 0 {
			series.take(r.processes, placed)
		}
	})
	if err == nil {
		err = series.err
	}
	return w, series.points, err
}

// curve returns the runs of a curve by its values.
func (r *Report) curve(name string) []ModeRun {
	return slices.DeleteFunc(slices.Clone(r.Runs), func(run ModeRun) bool { return run.Curve != name })
}

// printCurves shows each curve in relation to its first value.
func (r *Report) printCurves(w io.Writer) {
	for _, curve := range []struct{ name, title string }{
		{byStored, "With so many orders stored before."}, {byInstances, "With so many instances of every service, on this one machine."},
	} {
		runs := r.curve(curve.name)
		if len(runs) == 0 {
			continue
		}
		table(w, curve.title+" Ratios to the first.", curve.name, "run", "orders/s", "ratio", "end to end p50", "p99", "ratio", "CPU s/1,000 orders", "ratio")
		for i := range runs[0].Results {
			for _, run := range runs {
				if i >= len(run.Results) || i >= len(runs[0].Results) {
					continue
				}
				first, s := &runs[0].Results[i], &run.Results[i]
				row(w, strconv.Itoa(run.Value), s.Scenario, num(s.OrdersPerSecond, 0), ratio(s.OrdersPerSecond, first.OrdersPerSecond),
					num(s.EndToEnd.P50, 1), num(s.EndToEnd.P99, 1), ratio(s.EndToEnd.P99, first.EndToEnd.P99), num(s.allCPU(), 2), ratio(s.allCPU(), first.allCPU()))
			}
		}
	}
}

// printSeries shows what scenarios measured that others do not.
func (r *Report) printSeries(w io.Writer) {
	r.each(func(name string, s *Result) {
		if len(s.Memory) > 0 {
			table(w, name+": MiB resident after so many orders.", append([]string{"orders"}, serviceNames[:]...)...)
			for _, p := range s.Memory {
				cells := []string{strconv.Itoa(p.Orders)}
				for _, service := range serviceNames {
					cells = append(cells, num(p.MiB[service], 1))
				}
				row(w, cells...)
			}
		}
		if len(s.Disturbances) > 0 {
			table(w, name+": what instances that come and go cost, in seconds. Pause: no order settled. Order: from request due to terminal event.",
				"event", "at", "orders", "longest pause", "longest order")
			for _, d := range s.Disturbances {
				row(w, d.Event, num(d.At, 1), strconv.Itoa(d.Orders), num(d.LongestPause, 2), num(d.LongestOrder, 2))
			}
		}
	})
}

func ratio(v, first float64) string {
	if first == 0 {
		return ""
	}
	return num(v/first, 2)
}

// allCPU is the CPU time of 1,000 orders, without the driver's.
func (r *Result) allCPU() float64 {
	var all float64
	for part, seconds := range r.CPU {
		if part != "driver" {
			all += seconds
		}
	}
	return all
}
