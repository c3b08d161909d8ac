package plan

import (
	"fmt"
	"slices"
	"time"
)

// Leg is one start of a system on fresh databases, and the scenarios that it goes through.
type Leg struct {
	Mode              Mode
	Curve             string // what is varied from leg to leg, if anything
	Stored, Instances int    // orders that lie there before; instances of each service
	Scenarios         []Scenario
}

// The curves: how the cost of an order changes with the orders that lie there, and with the instances that share the
// work.
const (
	ByStored    = "stored"
	ByInstances = "instances"
)

// Legs are everything to run, in order. Several values of what a curve is about are that curve; without -full, only
// that.
func (o *Options) Legs() []Leg {
	var out []Leg
	curves := len(o.Stored) > 1 || len(o.Instances) > 1
	if !curves || o.Full {
		for _, mode := range o.Modes {
			base := Leg{Mode: mode, Instances: 1, Scenarios: o.scenarios(mode)}
			if len(o.Stored) == 1 {
				base.Stored = o.Stored[0]
			}
			if len(o.Instances) == 1 {
				base.Instances = o.Instances[0]
			}
			out = append(out, base)
		}
	}
	closed, flood := Scenario{Kind: Closed, N: 64, Length: 20 * time.Second}, Scenario{Kind: Flood, N: 64, Length: 8 * time.Second}
	open := Scenario{Kind: Open, N: 500, Length: 15 * time.Second}
	if len(o.Stored) > 1 {
		for _, n := range o.Stored {
			out = append(out, Leg{Mode: Converge, Curve: ByStored, Stored: n, Instances: 1, Scenarios: o.chosen(closed, open)})
		}
	}
	if len(o.Instances) > 1 {
		for _, n := range o.Instances {
			out = append(out, Leg{Mode: Converge, Curve: ByInstances, Instances: n, Scenarios: o.chosen(closed, flood, open)})
		}
	}
	return out
}

// chosen are the scenarios of a curve, if the command line has not named others.
func (o *Options) chosen(standard ...Scenario) []Scenario {
	if o.Compare == nil && !o.Full {
		return o.Scenarios
	}
	if o.Smoke {
		standard = slices.Clone(standard)
		for i := range standard {
			standard[i] = standard[i].brief()
		}
	}
	return standard
}

// Value is what the leg's curve varies.
func (l Leg) Value() int {
	if l.Curve == ByStored {
		return l.Stored
	}
	return l.Instances
}

// Prefix tells the leg's files from those of others.
func (l Leg) Prefix() string {
	if l.Curve == "" {
		return ""
	}
	return fmt.Sprintf("%s-%d-", l.Curve, l.Value())
}

// String says what is special about the leg.
func (l Leg) String() string {
	switch l.Curve {
	case ByStored:
		return fmt.Sprintf("%s with %d orders stored before", l.Mode, l.Stored)
	case ByInstances:
		return fmt.Sprintf("%s with %d instance(s) of each service", l.Mode, l.Instances)
	}
	return string(l.Mode)
}

// Expected is about how long the leg takes: enough to tell whether there is time for a coffee.
func (l Leg) Expected(o *Options) time.Duration {
	if l.Mode == SQLFloor {
		return time.Duration(len(FloorBatches)) * (o.FloorLength*6/5 + 2*time.Second)
	}
	total := 8*time.Second + 2*o.Warmup + time.Duration(l.Stored)*60*time.Microsecond
	for _, s := range l.Scenarios {
		const looks = 3 * time.Second // at the counters and the databases
		rate := 2000.0
		if l.Mode == Naive {
			rate = 300
		}
		length := s.Length
		if s.Orders > 0 {
			length = time.Duration(float64(s.Orders) / rate * float64(time.Second))
		}
		total += length + looks
		if s.Kind != Idle {
			total += min(o.Warmup, s.Length)
		}
	}
	return total
}
