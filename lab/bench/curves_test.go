package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLegs(t *testing.T) {
	t.Parallel()
	names := func(change func(*Options)) (out []string) {
		o := Defaults()
		change(&o)
		if err := Choose(&o, "", "", 0); err != nil {
			t.Fatal(err)
		}
		for _, l := range o.legs() {
			if l.instances < 1 || len(l.scenarios) == 0 && l.mode != Floor || l.expected(&o) < time.Second {
				t.Errorf("%+v cannot be run", l)
			}
			out = append(out, l.String())
		}
		return out
	}
	base := []string{"converge", "usual", "floor"}
	stored := []string{"converge with 10 orders stored before", "converge with 20 orders stored before"}
	for _, tc := range []struct {
		name   string
		change func(*Options)
		want   []string
	}{
		{"defaults", func(*Options) {}, base},
		{"one value", func(o *Options) { o.Stored, o.Instances = []int{10}, []int{2} }, base},
		{"a curve alone", func(o *Options) { o.Stored = []int{10, 20} }, stored},
		{"full", func(o *Options) { o.Full, o.Stored, o.Instances = true, []int{10, 20}, []int{1} }, append(base, stored...)},
	} {
		if diff := cmp.Diff(tc.want, names(tc.change)); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
	if got := names(func(o *Options) { o.Full = true }); len(got) != 3+3+3 {
		t.Errorf("full runs %q", got)
	}
}

func TestCurveOfChosenScenarios(t *testing.T) {
	t.Parallel()
	o := Defaults()
	o.Instances = []int{1, 2}
	if err := Choose(&o, "", "open:7:1s", 0); err != nil {
		t.Fatal(err)
	}
	if legs := o.legs(); len(legs) != 2 || len(legs[1].scenarios) != 1 || legs[1].scenarios[0].String() != "open:7" {
		t.Errorf("legs %+v; want open:7 twice", legs)
	}
}

// Nothing settles for 2 s after a join; a crash holds one order that was placed before it.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	var samples []sample
	for s := 0.0; s < 10; s += 0.5 {
		took := 0.1
		switch {
		case s >= 2 && s < 4:
			took = 4.1 - s
		case s == 6.5:
			took = 5
		}
		samples = append(samples, sample{sent: at(s), acked: at(s), settled: at(s + took)})
	}
	samples = append(samples, sample{sent: at(9), acked: at(9)}) // never settles
	got := disturbances(samples, []mark{{steady, at(0)}, {joined, at(2)}, {killed, at(7)}}, at(10))
	want := []Disturbance{
		{Event: steady, At: 0, Orders: 4, LongestPause: 0.5, LongestOrder: 0.1},
		{Event: joined, At: 2, Orders: 9, LongestPause: 2.1, LongestOrder: 2.1},
		{Event: killed, At: 7, Orders: 6, LongestPause: 0.5, LongestOrder: 5},
	}
	round := cmp.Comparer(func(a, b float64) bool { return a-b < 0.02 && b-a < 0.02 })
	if diff := cmp.Diff(want, got, round); diff != "" {
		t.Error(diff)
	}
}

// measured is a report in which everything was measured.
func measured() *Report {
	load := func(scenario string, rate, p99 float64) Result {
		return Result{
			Scenario: scenario, Orders: 100, OrdersPerSecond: rate, Ack: Quantiles{P99: 5}, EndToEnd: Quantiles{P99: p99}, Stored: Quantiles{P50: p99 / 10, P99: p99},
			CPU: map[string]float64{"order": 1, "driver": 7}, PeakMiB: map[string]float64{"order": 90, "payment": 160},
		}
	}
	r := &Report{Runs: []ModeRun{
		{Mode: Converge, Results: []Result{
			load("closed:64", 5000, 20), load("flood:64", 7000, 500), load("open:100", 100, 12), load("open:500", 500, 30),
			{Scenario: "idle", Cores: map[string]float64{"order": 0.004, "inventory": 0.02, "kafka": 0.3}},
			{Scenario: "rebalance", Orders: 1, Ack: Quantiles{P50: 1}, Disturbances: []Disturbance{
				{Event: left, LongestPause: 0.25, LongestOrder: 2.5},
				{Event: killed, LongestPause: 0.13, LongestOrder: 6.07}, // the others settle theirs meanwhile
			}},
			{Scenario: "memory", Orders: 1, Ack: Quantiles{P50: 1}, Memory: []MemoryPoint{{0, map[string]float64{"order": 10}}, {50_000, map[string]float64{"order": 12.5}}}},
		}},
		{Mode: Usual, Results: []Result{load("flood:64", 700, 900)}},
		{Mode: Floor, Results: []Result{load("batches of 64", 10_000, 0)}},
		{Mode: Converge, Curve: byStored, Value: 10_000, Results: []Result{load("closed:64", 5000, 20), load("open:500", 500, 30)}},
		{Mode: Converge, Curve: byStored, Value: 100_000, Results: []Result{load("closed:64", 4000, 20), load("open:500", 500, 31.5)}},
	}}
	r.judge()
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
	if r := (&Report{}); len(r.Aims) > 0 || r.violated() {
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
	o := Defaults()
	o.JSON, o.Markdown = t.TempDir()+"/a/b.json", t.TempDir()+"/c/d.md"
	r := measured()
	var out bytes.Buffer
	if err := r.write(o, &out); err != nil {
		t.Fatal(err)
	}
	r.Runs[0].Results[0].Orders++
	if err := r.readBack(o.JSON); err == nil {
		t.Error("a report that differs from its file went unnoticed")
	}
}
