package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
)

// measured is a report in which everything was measured.
func measured() *Report {
	load := func(scenario string, rate, p99 float64) Result {
		return Result{
			Scenario: scenario, Orders: 100, OrdersPerSecond: rate, Ack: measure.Quantiles{P99: 5}, EndToEnd: measure.Quantiles{P99: p99}, Stored: measure.Quantiles{P50: p99 / 10, P99: p99},
			CPU: map[string]float64{"order": 1, "driver": 7}, PeakMiB: map[string]float64{"order": 90, "payment": 160},
		}
	}
	r := &Report{Runs: []ModeRun{
		{Mode: plan.Converge, Results: []Result{
			load("closed:64", 5000, 20), load("flood:64", 7000, 500), load("open:100", 100, 12), load("open:500", 500, 30),
			{Scenario: "idle", Cores: map[string]float64{"order": 0.004, "inventory": 0.02, "kafka": 0.3}},
			{Scenario: "rebalance", Orders: 1, Ack: measure.Quantiles{P50: 1}, Disturbances: []measure.Disturbance{
				{Event: measure.Left, LongestPause: 0.25, LongestOrder: 2.5},
				{Event: measure.Killed, LongestPause: 0.13, LongestOrder: 6.07}, // the others settle theirs meanwhile
			}},
			{Scenario: "memory", Orders: 1, Ack: measure.Quantiles{P50: 1}, Memory: []measure.MemoryPoint{{MiB: map[string]float64{"order": 10}}, {Orders: 50_000, MiB: map[string]float64{"order": 12.5}}}},
		}},
		{Mode: plan.Naive, Results: []Result{load("flood:64", 700, 900)}},
		{Mode: plan.SQLFloor, Results: []Result{load("batches of 64", 10_000, 0)}},
		{Mode: plan.Converge, Curve: plan.ByStored, Value: 10_000, Results: []Result{load("closed:64", 5000, 20), load("open:500", 500, 30)}},
		{Mode: plan.Converge, Curve: plan.ByStored, Value: 100_000, Results: []Result{load("closed:64", 4000, 20), load("open:500", 500, 31.5)}},
	}}
	r.Judge()
	return r
}

func TestAims(t *testing.T) {
	t.Parallel()
	got := map[string]bool{}
	for _, a := range measured().Aims {
		got[a.What] = a.Met
	}
	want := map[string]bool{
		"flood:64, to terminal state": true, "closed:64, to terminal state": false,
		"open:100, stored p50": true, "open:100, stored p99": false, "open:500, stored p50": true, "open:500, stored p99": true,
		"open:500, ack p99": true, "idle, the busiest service": false,
		"against the usual way, orders/s, the better of closed and flood each": true,
		"of the floor in batches of 64, orders/s":                              true, "peak memory, the largest instance": false,
		"longest without an order settled when instances join or leave":    true,
		"longest that any order took when instances join or leave":         true,
		"longest that any order took when one is killed and started again": false,
		"stored, orders/s of closed:64, the worst against the first":       false,
		"stored, p99 of open:500, the worst against the first":             true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r := (&Report{}); len(r.Aims) > 0 || r.Violated() {
		t.Error("nothing was measured")
	}
}

func TestReportShowsCurvesAndSeries(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	measured().print(&out)
	for _, want := range []string{
		"| flood:64, to terminal state | ≥ 6500 orders/s | 7000.0 orders/s | met |",
		"| 100000 | closed:64 | 4000 | 0.80 | 0.0 | 20.0 | 1.00 | 1.00 | 1.00 |",
		"| 50000 | 12.5 | 0.0 | 0.0 |",
		"| longest that any order took when one is killed and started again | ≤ 1.5 s | 6.07 s | not met |",
		"| it is killed, and started again | 0.0 | 0 | 0.13 | 6.07 |",
		"| flood:64, orders/s, usual | 7000.0 | 700.0 | 10.0 × |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestReportIsReadBack(t *testing.T) {
	t.Parallel()
	o := plan.Defaults()
	o.JSON, o.Markdown = t.TempDir()+"/a/b.json", t.TempDir()+"/c/d.md"
	r := measured()
	var out bytes.Buffer
	if err := r.Write(o, &out); err != nil {
		t.Fatal(err)
	}
	r.Runs[0].Results[0].Orders++
	if err := r.readBack(o.JSON); err == nil {
		t.Error("a report that differs from its file went unnoticed")
	}
}

func TestReportTellsOfViolations(t *testing.T) {
	t.Parallel()
	r := Report{Runs: []ModeRun{{Mode: plan.Converge, Results: []Result{
		{Scenario: "closed:64", Orders: 10, OrdersPerSecond: 1000, Ack: measure.Quantiles{P50: 1}, EndToEnd: measure.Quantiles{P50: 2}},
	}}, {Mode: plan.Naive, Results: []Result{{Scenario: "closed:64", OrdersPerSecond: 100, Ack: measure.Quantiles{P50: 1}, EndToEnd: measure.Quantiles{P50: 20}}}}}}
	if r.Violated() {
		t.Fatal("violated without violations")
	}
	r.Runs[0].Results[0].Violations = []string{"3 orders are PENDING"}
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{
		"converge, closed:64: VIOLATED: 3 orders are PENDING",
		"| closed:64, orders/s, usual | 1000.0 | 100.0 | 10.0 × |",
		"| closed:64, end to end p50, usual | 2.0 ms | 20.0 ms | 10 % |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
	if !r.Violated() {
		t.Error("violations went unnoticed")
	}
}

func TestProfilesAreTables(t *testing.T) {
	t.Parallel()
	all := []measure.Function{{Name: "internal/runtime/syscall/linux.Syscall6", OwnMS: 400, Own: 40, Total: 41}, {Name: "runtime.futex", OwnMS: 200, Own: 20, Total: 20}}
	shares := map[string]float64{
		"system calls": 40, "scheduling": 20, "allocation": 10, "garbage collection": 10, "rest of the runtime": 8, "standard library": 5, "libraries": 4, "own code": 3,
	}
	r := &Report{Runs: []ModeRun{{Mode: plan.Converge, Results: []Result{{
		Scenario: "closed:64", Profiles: []measure.Profile{{Service: "order", File: "x.pprof", Functions: all, Shares: shares}},
	}}}}}
	var out bytes.Buffer
	r.printProfiles(&out)
	for _, want := range []string{"| converge closed:64 | order | 40 | 20 | 10 | 10 | 8 | 5 | 4 | 3 |", "| `runtime.futex` | 200 | 20.0 | 20.0 |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}
