package bench

import (
	"fmt"
	"slices"
	"time"
)

// leg is one start of a system on fresh databases, and the scenarios that it goes through.
type leg struct {
	mode              Mode
	curve             string // what is varied from leg to leg, if anything
	stored, instances int
	scenarios         []Scenario
}

// The curves: how the cost of an order changes with the orders that lie there, and with the instances that share the work.
const (
	byStored    = "stored"
	byInstances = "instances"
)

// legs are everything to run, in order. Several values of what a curve is about are that curve; without -full, only that.
func (o *Options) legs() []leg {
	var out []leg
	curves := len(o.Stored) > 1 || len(o.Instances) > 1
	if !curves || o.Full {
		for _, mode := range o.Modes {
			base := leg{mode: mode, instances: 1, scenarios: o.scenarios(mode)}
			if len(o.Stored) == 1 {
				base.stored = o.Stored[0]
			}
			if len(o.Instances) == 1 {
				base.instances = o.Instances[0]
			}
			out = append(out, base)
		}
	}
	closed, flood := Scenario{Kind: Closed, N: 64, Length: 20 * time.Second}, Scenario{Kind: Flood, N: 64, Length: 8 * time.Second}
	open := Scenario{Kind: Open, N: 500, Length: 15 * time.Second}
	if len(o.Stored) > 1 {
		for _, n := range o.Stored {
			out = append(out, leg{mode: Converge, curve: byStored, stored: n, instances: 1, scenarios: o.chosen(closed, open)})
		}
	}
	if len(o.Instances) > 1 {
		for _, n := range o.Instances {
			out = append(out, leg{mode: Converge, curve: byInstances, instances: n, scenarios: o.chosen(closed, flood, open)})
		}
	}
	return out
}

// chosen are the scenarios of a curve, if the command line has not named others.
func (o *Options) chosen(usual ...Scenario) []Scenario {
	if o.Compare == nil && !o.Full {
		return o.Scenarios
	}
	if o.Smoke {
		usual = slices.Clone(usual)
		for i := range usual {
			usual[i] = usual[i].brief()
		}
	}
	return usual
}

// value is what the leg's curve varies.
func (l leg) value() int {
	if l.curve == byStored {
		return l.stored
	}
	return l.instances
}

// prefix tells the leg's files from those of others.
func (l leg) prefix() string {
	if l.curve == "" {
		return ""
	}
	return fmt.Sprintf("%s-%d-", l.curve, l.value())
}

// String says what is special about the leg.
func (l leg) String() string {
	switch l.curve {
	case byStored:
		return fmt.Sprintf("%s with %d orders stored before", l.mode, l.stored)
	case byInstances:
		return fmt.Sprintf("%s with %d instance(s) of each service", l.mode, l.instances)
	}
	return string(l.mode)
}

// expected is about how long the leg takes: enough to tell whether there is time for a coffee.
func (l leg) expected(o *Options) time.Duration {
	if l.mode == Floor {
		return time.Duration(len(floorBatches)) * (o.FloorLength*6/5 + 2*time.Second)
	}
	total := 8*time.Second + 2*o.Warmup + time.Duration(l.stored)*60*time.Microsecond
	for _, s := range l.scenarios {
		const looks = 3 * time.Second // at the counters and the databases
		rate := 2000.0
		if l.mode == Usual {
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
