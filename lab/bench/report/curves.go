package report

import (
	"io"
	"strconv"

	"github.com/converge-dev/converge/lab/bench/markdown"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// printCurves shows each curve in relation to its first value.
func (r *Report) printCurves(w io.Writer) {
	for _, curve := range []struct{ name, title string }{
		{plan.ByStored, "With so many orders stored before."}, {plan.ByInstances, "With so many instances of every service, on this one machine."},
	} {
		runs := r.curve(curve.name)
		if len(runs) == 0 {
			continue
		}
		markdown.Table(w, curve.title+" Ratios to the first.", curve.name, "run", "orders/s", "ratio", "end to end p50", "p99", "ratio", "CPU s/1,000 orders", "ratio")
		for i := range runs[0].Results {
			for _, run := range runs {
				if i >= len(run.Results) || i >= len(runs[0].Results) {
					continue
				}
				first, s := &runs[0].Results[i], &run.Results[i]
				markdown.Row(w, strconv.Itoa(run.Value), s.Scenario, markdown.Num(s.OrdersPerSecond, 0), ratio(s.OrdersPerSecond, first.OrdersPerSecond),
					markdown.Num(s.EndToEnd.P50, 1), markdown.Num(s.EndToEnd.P99, 1), ratio(s.EndToEnd.P99, first.EndToEnd.P99), markdown.Num(s.allCPU(), 2), ratio(s.allCPU(), first.allCPU()))
			}
		}
	}
}

// printSeries shows what scenarios measured that others do not.
func (r *Report) printSeries(w io.Writer) {
	r.each(func(name string, s *Result) {
		if len(s.Memory) > 0 {
			markdown.Table(w, name+": MiB resident after so many orders.", append([]string{"orders"}, workload.Services[:]...)...)
			for _, p := range s.Memory {
				cells := []string{strconv.Itoa(p.Orders)}
				for _, service := range workload.Services {
					cells = append(cells, markdown.Num(p.MiB[service], 1))
				}
				markdown.Row(w, cells...)
			}
		}
		if len(s.Disturbances) > 0 {
			markdown.Table(w, name+": what instances that come and go cost, in seconds. Pause: no order settled. Order: from request due to terminal event.",
				"event", "at", "orders", "longest pause", "longest order")
			for _, d := range s.Disturbances {
				markdown.Row(w, d.Event, markdown.Num(d.At, 1), strconv.Itoa(d.Orders), markdown.Num(d.LongestPause, 2), markdown.Num(d.LongestOrder, 2))
			}
		}
	})
}

func ratio(v, first float64) string {
	if first == 0 {
		return ""
	}
	return markdown.Num(v/first, 2)
}
