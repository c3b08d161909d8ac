package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
)

// Latencies fills in what the driver saw.
func (r *Result) Latencies(samples []driver.Sample, w driver.Window) {
	acks := make([]time.Duration, 0, len(samples))
	ends := make([]time.Duration, 0, len(samples))
	within := 0
	for _, s := range samples {
		acks = append(acks, s.Acked.Sub(s.Sent))
		if s.Settled.IsZero() {
			continue
		}
		ends = append(ends, s.Settled.Sub(s.Sent))
		if !s.Settled.After(w.To) {
			within++
		}
	}
	r.Orders, r.Seconds = len(samples), w.Seconds()
	r.OrdersPerSecond = float64(within) / w.Seconds()
	r.Ack, r.EndToEnd = measure.QuantilesOf(acks), measure.QuantilesOf(ends)
	r.Backlog = backlogPeak(samples)
}

// backlogPeak is the most orders that were under way at one time: acknowledged, and not settled.
func backlogPeak(samples []driver.Sample) int {
	acked := make([]time.Time, 0, len(samples))
	settled := make([]time.Time, 0, len(samples))
	for _, s := range samples {
		if s.Settled.IsZero() {
			acked = append(acked, s.Acked)
		} else if s.Settled.After(s.Acked) { // else its event came before its answer
			acked, settled = append(acked, s.Acked), append(settled, s.Settled)
		}
	}
	slices.SortFunc(acked, time.Time.Compare)
	slices.SortFunc(settled, time.Time.Compare)
	peak, done := 0, 0
	for i, at := range acked {
		for done < len(settled) && !settled[done].After(at) {
			done++
		}
		peak = max(peak, i+1-done)
	}
	return peak
}

// Used fills in what the scenario used.
func (r *Result) Used(u measure.Usage) {
	r.CPU, r.Cores, r.OtherCores, r.Work, r.Batches = u.CPU, u.Cores, u.OtherCores, u.Work, u.Batches
}

// Line is the result in short.
func (r *Result) Line() string {
	var b strings.Builder
	switch {
	case r.Scenario == string(plan.Idle):
		for _, part := range measure.Parts {
			fmt.Fprintf(&b, "%s %.2f %%  ", part, r.Cores[part]*100)
		}
	case r.Ack == measure.Quantiles{}: // the floor answers nobody
		fmt.Fprintf(&b, "%.0f orders/s", r.OrdersPerSecond)
	default:
		fmt.Fprintf(&b, "%.0f orders/s, ack p50 %.1f p99 %.1f ms, end to end p50 %.1f p99 %.1f ms, stored p50 %.1f p99 %.1f ms",
			r.OrdersPerSecond, r.Ack.P50, r.Ack.P99, r.EndToEnd.P50, r.EndToEnd.P99, r.Stored.P50, r.Stored.P99)
	}
	if r.Backlog > 0 {
		fmt.Fprintf(&b, ", backlog %d at most", r.Backlog)
	}
	if r.OtherCores > 0.1 {
		fmt.Fprintf(&b, "\n  noise: other programs used %.1f cores", r.OtherCores)
	}
	if r.Failures > 0 {
		fmt.Fprintf(&b, "\n  %d requests failed, such as: %s", r.Failures, r.Failure)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(&b, "\n  VIOLATED: %s", v)
	}
	return b.String()
}
