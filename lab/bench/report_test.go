package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var ds []time.Duration
	for i := range 1000 {
		ds = append(ds, time.Duration((i*7)%1000+1)*time.Millisecond) // 1 to 1000 ms, shuffled
	}
	for _, tc := range []struct {
		ds   []time.Duration
		want Quantiles
	}{
		{ds, Quantiles{P50: 500, P90: 900, P99: 990, Max: 1000}},
		{[]time.Duration{3 * time.Millisecond}, Quantiles{3, 3, 3, 3}},
		{[]time.Duration{2 * time.Millisecond, time.Millisecond}, Quantiles{1, 2, 2, 2}},
		{nil, Quantiles{}},
	} {
		if got := quantilesOf(tc.ds); got != tc.want {
			t.Errorf("of %d: %+v, want %+v", len(tc.ds), got, tc.want)
		}
	}
}

func TestBatchesFromMetrics(t *testing.T) {
	t.Parallel()
	const page = `# HELP converge_consumer_batch_size Messages.
# TYPE converge_consumer_batch_size histogram
converge_consumer_batch_size_bucket{group="inventory",le="1"} 3
converge_consumer_batch_size_sum{group="inventory"} %[1]s
converge_consumer_batch_size_count{group="inventory"} 40
converge_consumer_batch_size_sum{group="inventory.release"} 0
converge_consumer_batch_size_count{group="inventory.release"} 0
converge_consumer_handler_seconds_sum{group="inventory",topic="order.created"} 0.06
converge_consumer_duplicates_total{group="inventory"} 2
converge_outbox_batch_size_sum 900
converge_outbox_batch_size_count 30
go_info{version="go1.26"} 1
`
	before, after := series{}, series{}
	for s, sum := range map[*series]string{&before: "400", &after: "1.0e+03"} {
		if err := s.read(strings.NewReader(strings.ReplaceAll(page, "%[1]s", sum))); err != nil {
			t.Fatal(err)
		}
	}
	before[batchCount+`{group="inventory"}`] = 20
	before[relayCount], before[relaySum] = 0, 0
	got := after.since(before).batches("inventory")
	want := []Batch{{Who: "inventory", Transactions: 20, Average: 30}, {Who: "relay of inventory", Transactions: 30, Average: 30}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := (series{}).read(strings.NewReader("nonsense")); err == nil {
		t.Error("nonsense was read as a sample")
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	got, err := parseScenarios("idle,closed:64,open:0.5:3s,idle:1s,closed:8:200,flood:64,flood:8:5s,flood:8:300", time.Minute)
	want := []Scenario{
		{Kind: Idle, Length: time.Minute}, {Kind: Closed, N: 64, Length: time.Minute}, {Kind: Open, N: 0.5, Length: 3 * time.Second},
		{Kind: Idle, Length: time.Second}, {Kind: Closed, N: 8, Length: time.Minute, Orders: 200},
		{Kind: Flood, N: 64, Length: time.Minute}, {Kind: Flood, N: 8, Length: 5 * time.Second}, {Kind: Flood, N: 8, Length: time.Minute, Orders: 300},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"", "closed", "closed:0", "closed:1.5", "open:-1", "open:x", "open:1:2", "closed:1:-2s", "closed:1:2s:3", "closed:1:-5", "open:1:500", "half:3", "flood", "flood:0", "flood:1:300000", "flood:1:2s:3"} {
		if got, err := parseScenarios(bad, time.Second); err == nil {
			t.Errorf("%q was taken for %v", bad, got)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		modes, list string
		length      time.Duration
		smoke       bool
		instances   []int
		ok          bool
	}{
		"defaults":         {ok: true},
		"one mode":         {modes: "converge", ok: true},
		"no such mode":     {modes: "best"},
		"no instances":     {instances: []int{1, 0}},
		"smoke of a list":  {list: "closed:2", smoke: true, instances: []int{2}, ok: true},
		"shorter defaults": {length: time.Second, ok: true},
	} {
		o := Defaults()
		o.Instances, o.Smoke = tc.instances, tc.smoke
		if err := Choose(&o, tc.modes, tc.list, tc.length); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		for _, s := range o.Scenarios {
			if tc.smoke && s.Length > 2*time.Second || tc.length > 0 && s.Length != tc.length {
				t.Errorf("%s: %s lasts %s", name, s, s.Length)
			}
		}
	}
	for name, broken := range map[string]func(*Options){
		"no partitions":        func(o *Options) { o.Partitions = 0 },
		"a name alone":         func(o *Options) { o.Env = []string{"GOGC=50", "GOGC"} },
		"a value of no name":   func(o *Options) { o.Env = []string{"=50"} },
		"two of three servers": func(o *Options) { o.Servers = 2 },
	} {
		o := Defaults()
		if broken(&o); o.validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := Defaults()
	for _, s := range o.scenarios(Usual) {
		if s.Kind == Idle {
			t.Error("the usual way runs idle")
		}
	}
}

func TestReportTellsOfViolations(t *testing.T) {
	t.Parallel()
	r := Report{Runs: []ModeRun{{Mode: Converge, Results: []Result{
		{Scenario: "closed:64", Orders: 10, OrdersPerSecond: 1000, Ack: Quantiles{P50: 1}, EndToEnd: Quantiles{P50: 2}},
	}}, {Mode: Usual, Results: []Result{{Scenario: "closed:64", OrdersPerSecond: 100, Ack: Quantiles{P50: 1}, EndToEnd: Quantiles{P50: 20}}}}}}
	if r.violated() {
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
	if !r.violated() {
		t.Error("violations went unnoticed")
	}
}
