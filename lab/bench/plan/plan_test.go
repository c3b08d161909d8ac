package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

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
		if broken(&o); o.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o := Defaults()
	for _, s := range o.scenarios(Naive) {
		if s.Kind == Idle {
			t.Error("the usual way runs idle")
		}
	}
}
