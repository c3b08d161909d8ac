package soak

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to do to the system, and for how long. Zero values mean the defaults.
type Options struct {
	Duration time.Duration `json:"nanoseconds"`        // of load and faults; settling comes after it
	Seed     uint64        `json:"seed"`               // decides which faults come when, and what is ordered
	Faults   []string      `json:"faults"`             // default: all
	On       []string      `json:"on"`                 // the services that faults which choose one choose from; default: all
	Rate     float64       `json:"rate"`               // orders per second; default 150
	Burst    float64       `json:"burst"`              // orders per second while Kafka is away for long; default 1000
	Clients  int           `json:"clients"`            // requests at once; default 32
	Memory   float64       `json:"memoryMiB"`          // that a service may have at most; default 150
	Patience time.Duration `json:"-"`                  // how long nothing may move before what is open counts as stuck; default 30 s
	Settle   time.Duration `json:"settleNanoseconds"`  // that settling may take after the last fault; default 30 s
	Previous string        `json:"previous,omitempty"` // the commit that a rolling upgrade starts from; default: the last tag, or a constant
	Race     bool          `json:"race"`               // build the services with the race detector
	Sabotage string        `json:"sabotage,omitempty"` // break the services on purpose, see pkg/internal/sabotage
	Dir      string        `json:"-"`                  // for what the services log; default .data/soak
	JSON     string        `json:"-"`                  // where the report goes; empty: nowhere
	Markdown string        `json:"-"`
}

const defaultRate = 150

// sabotages are what pkg/internal/sabotage knows.
var sabotages = [...]string{"skip-inbox", "early-commit", "bypass-outbox"}

func (o *Options) defaults() error {
	o.Duration = cmp.Or(o.Duration, 5*time.Minute)
	o.Rate = cmp.Or(o.Rate, defaultRate)
	o.Burst = cmp.Or(o.Burst, 1000)
	o.Clients = cmp.Or(o.Clients, 32)
	o.Memory = cmp.Or(o.Memory, 150)
	o.Patience = cmp.Or(o.Patience, 30*time.Second)
	o.Settle = cmp.Or(o.Settle, 30*time.Second)
	o.Dir = cmp.Or(o.Dir, filepath.Join(".data", "soak"))
	if len(o.Faults) == 0 {
		o.Faults = FaultNames()
	}
	for _, name := range o.Faults {
		if !slices.Contains(FaultNames(), name) {
			return fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(FaultNames(), ", "))
		}
	}
	if len(o.On) == 0 {
		o.On = serviceNames()
	}
	for _, name := range o.On {
		if !slices.Contains(serviceNames(), name) {
			return fmt.Errorf("there is no service %q; there are %s", name, strings.Join(serviceNames(), ", "))
		}
	}
	if o.Sabotage != "" && !slices.Contains(sabotages[:], o.Sabotage) {
		return fmt.Errorf("there is no sabotage %q; there are %s", o.Sabotage, strings.Join(sabotages[:], ", "))
	}
	if o.Duration < 0 || o.Rate < 0 || o.Burst < 0 || o.Clients < 1 {
		return fmt.Errorf("duration %s, rate %g, burst %g, %d clients: want positive ones", o.Duration, o.Rate, o.Burst, o.Clients)
	}
	return nil
}

func (o *Options) has(fault string) bool { return slices.Contains(o.Faults, fault) }

// flags are what the services are built with. Without a need for them, the binaries are those of production.
func (o *Options) flags() []string {
	var flags []string
	if o.Race {
		flags = append(flags, "-race")
	}
	if o.Sabotage != "" || o.has("clock") {
		flags = append(flags, "-tags=faults")
	}
	return flags
}

// command is what runs the same plan again.
func (o *Options) command() string {
	args := fmt.Sprintf("-duration %s -seed %d", o.Duration, o.Seed)
	if o.Rate != defaultRate {
		args += fmt.Sprintf(" -rate %g", o.Rate)
	}
	if len(o.Faults) < len(FaultNames()) {
		args += " -faults " + strings.Join(o.Faults, ",")
	}
	if o.has(rollingUpgrade) && o.Previous != "" {
		args += " -previous " + o.Previous
	}
	if len(o.On) < len(serviceNames()) {
		args += " -on " + strings.Join(o.On, ",")
	}
	if o.Sabotage != "" {
		args += " -sabotage " + o.Sabotage
	}
	return `make soak ARGS="` + args + `"`
}

// long scales what should last a minute to a run that is not long itself.
func (o *Options) long(d time.Duration) time.Duration { return min(d, o.Duration/8) }
