package bench

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind is how a scenario puts load on the system.
type Kind string

// Idle is no load. Closed is clients that wait until their order has settled before they place the next. Flood is clients
// that wait for the 202 only, as the web's do. Open is orders at a rate, whatever became of the ones before.
const (
	Idle   Kind = "idle"
	Closed Kind = "closed"
	Flood  Kind = "flood"
	Open   Kind = "open"
)

// floodMost bounds what the driver has to remember of a flood.
const floodMost = 200_000

// Scenario is one load, for a time.
type Scenario struct {
	Kind   Kind
	N      float64 // clients, or orders per second of an open loop
	Length time.Duration
	Orders int // of clients: how many in all, instead of how long
}

// String is how the scenario is written on the command line.
func (s Scenario) String() string {
	if s.Kind == Idle {
		return string(Idle)
	}
	return fmt.Sprintf("%s:%g", s.Kind, s.N)
}

// clients says whether N is a number of clients.
func (s Scenario) clients() bool { return s.Kind == Closed || s.Kind == Flood }

// parseScenarios reads a list such as "idle,closed:64,open:500:10s"; the third part overrides length, or says
// after how many orders clients stop, as in "closed:64:200000".
func parseScenarios(list string, length time.Duration) ([]Scenario, error) {
	var out []Scenario
	for text := range strings.SplitSeq(list, ",") {
		fields := strings.Split(text, ":")
		s := Scenario{Kind: Kind(fields[0]), Length: length}
		rest := fields[1:]
		var err error
		if s.Kind != Idle && len(rest) > 0 {
			s.N, err = strconv.ParseFloat(rest[0], 64)
			rest = rest[1:]
		}
		if err == nil && len(rest) > 0 && s.clients() {
			var notANumber error
			if s.Orders, notANumber = strconv.Atoi(rest[0]); notANumber == nil {
				rest = rest[1:]
			}
		}
		if err == nil && len(rest) > 0 {
			s.Length, err = time.ParseDuration(rest[0])
			rest = rest[1:]
		}
		if err == nil {
			err = s.validate()
		}
		if err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("scenario %q: want idle, closed:CLIENTS, flood:CLIENTS or open:RATE, each with :DURATION if it is to be another; or closed:CLIENTS:ORDERS or flood:CLIENTS:ORDERS", text)
		}
		out = append(out, s)
	}
	return out, nil
}

func (s Scenario) validate() error {
	switch s.Kind {
	case Idle:
	case Closed, Flood:
		if s.N < 1 || s.N > 10_000 || s.N != float64(int(s.N)) {
			return fmt.Errorf("%s: want 1 to 10000 clients", s)
		}
	case Open:
		if s.N <= 0 || s.N > 1e6 {
			return fmt.Errorf("%s: want a rate above zero", s)
		}
	default:
		return fmt.Errorf("there is no scenario %q", s.Kind)
	}
	switch {
	case s.Length <= 0 || s.Orders < 0:
		return fmt.Errorf("%s: want a duration above zero", s)
	case s.Kind == Flood && s.Orders > floodMost:
		return fmt.Errorf("%s: want %d orders at most", s, floodMost)
	}
	return nil
}

// warmUp is the scenario's load before it counts, no longer than itself. A flood's is that of a closed loop: its backlog
// would have to drain first.
func (s Scenario) warmUp(length time.Duration) Scenario {
	if s.Kind == Flood {
		s.Kind = Closed
	}
	s.Length, s.Orders = min(length, s.Length), 0
	return s
}
