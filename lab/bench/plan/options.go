package plan

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/bench/workload"
)

// Options say what to measure. The zero value of a field that must not be zero is refused, see [Defaults].
type Options struct {
	Modes       []Mode        `json:"-"`
	Scenarios   []Scenario    `json:"-"`       // of Converge, and of Naive if it has none of its own
	Compare     []Scenario    `json:"-"`       // of Naive
	FloorLength time.Duration `json:"-"`       // of each of [FloorBatches]
	Profile     bool          `json:"profile"` // take CPU profiles of the services
	Warmup      time.Duration `json:"-"`       // before each scenario but idle, at its load; and twice as long before the first
	Even        bool          `json:"evenSpacing"`
	Full        bool          `json:"full"`        // everything there is, curves included
	Smoke       bool          `json:"smoke"`       // only to see that everything works
	Instances   []int         `json:"instances"`   // of each service, 1 if not given; several: one run each
	Servers     int           `json:"servers"`     // PostgreSQL servers: 1 for all, or 3
	Stored      []int         `json:"stored"`      // orders that went through the system before; several: one run each
	Partitions  int           `json:"partitions"`  // of every topic
	Env         []string      `json:"environment"` // settings of the services, as NAME=VALUE
	Seed        uint64        `json:"seed"`
	Dir         string        `json:"-"` // for what the services log
	JSON        string        `json:"-"` // where the report goes
	Markdown    string        `json:"-"` // where its tables go
}

// Defaults are what `make bench` measures.
func Defaults() Options {
	dir := filepath.Join(".data", "bench")
	return Options{
		Modes: []Mode{Converge, Naive, SQLFloor},
		Scenarios: []Scenario{
			{Kind: Closed, N: 64, Length: 30 * time.Second}, {Kind: Flood, N: 64, Length: 10 * time.Second},
			{Kind: Open, N: 100, Length: 15 * time.Second}, {Kind: Open, N: 500, Length: 15 * time.Second},
			{Kind: Idle, Length: 5 * time.Second},
		},
		Compare: []Scenario{
			{Kind: Closed, N: 64, Length: 12 * time.Second}, {Kind: Flood, N: 64, Length: time.Minute, Orders: 5000},
			{Kind: Open, N: 100, Length: 8 * time.Second},
		},
		FloorLength: 6 * time.Second,
		Warmup:      5 * time.Second, Servers: 1, Partitions: 6, Seed: 1, Dir: dir, JSON: filepath.Join(dir, "bench.json"), Markdown: filepath.Join(dir, "bench.md"),
	}
}

// Choose applies what the command line says of the scenarios: which, how long, and whether only for a look.
func Choose(o *Options, modes, list string, length time.Duration) error {
	if modes != "" {
		o.Modes = nil
		for mode := range strings.SplitSeq(modes, ",") {
			o.Modes = append(o.Modes, Mode(mode))
		}
	}
	if list != "" {
		var err error
		if o.Scenarios, err = parseScenarios(list, cmp.Or(length, 20*time.Second)); err != nil {
			return err
		}
		o.Compare = nil
	} else if length != 0 {
		for i := range o.Scenarios {
			o.Scenarios[i].Length = length
		}
	}
	if o.Full {
		o.Scenarios = append(o.Scenarios, rebalanceFor(time.Minute), memoryOf(200_000))
		if len(o.Stored) == 0 {
			o.Stored = []int{10_000, 100_000, 1_000_000}
		}
		if len(o.Instances) == 0 {
			o.Instances = []int{1, 2, 4}
		}
	}
	if o.Smoke {
		o.Warmup, o.FloorLength = 500*time.Millisecond, time.Second
		if list == "" {
			o.Scenarios = append(o.Scenarios, rebalanceFor(time.Minute), memoryOf(200_000))
			o.Stored = []int{1000}
		}
		for _, scenarios := range [][]Scenario{o.Scenarios, o.Compare} {
			for i := range scenarios {
				scenarios[i] = scenarios[i].brief()
			}
		}
	}
	return o.Validate()
}

// scenarios are those of a mode. The naive way has nothing to show without load.
func (o *Options) scenarios(mode Mode) []Scenario {
	if mode == Converge {
		return o.Scenarios
	}
	compare := o.Compare
	if compare == nil {
		compare = o.Scenarios
	}
	return slices.DeleteFunc(slices.Clone(compare), func(s Scenario) bool { return s.Kind == Idle })
}

// FloorBatches are as many orders as a closed loop has under way, and as many as are worth it.
var FloorBatches = [...]int{64, 500}

// Validate tells what cannot be measured.
func (o *Options) Validate() error {
	for _, m := range o.Modes {
		if m != Converge && m != Naive && m != SQLFloor {
			return fmt.Errorf("mode %q: want %s, %s or %s", m, Converge, Naive, SQLFloor)
		}
	}
	for _, s := range o.Scenarios {
		if err := s.validate(); err != nil {
			return err
		}
	}
	for _, setting := range o.Env {
		if name, _, ok := strings.Cut(setting, "="); !ok || name == "" {
			return fmt.Errorf("environment %q: want NAME=VALUE", setting)
		}
	}
	switch {
	case len(o.Scenarios) == 0:
		return fmt.Errorf("no scenarios given")
	case slices.ContainsFunc(o.Instances, func(n int) bool { return n < 1 }):
		return fmt.Errorf("%d instances: want at least 1", o.Instances)
	case o.Partitions < 1:
		return fmt.Errorf("%d partitions: want at least 1", o.Partitions)
	case slices.ContainsFunc(o.Stored, func(n int) bool { return n < 0 }):
		return fmt.Errorf("%d orders stored: want none or more", o.Stored)
	case o.Servers != 1 && o.Servers != len(workload.Services):
		return fmt.Errorf("%d PostgreSQL servers: want 1 or %d", o.Servers, len(workload.Services))
	}
	return nil
}
