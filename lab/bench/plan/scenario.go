package plan

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
)

// Kind is how a scenario puts load on the system.
type Kind string

// Idle is no load. Closed is clients that wait until their order has settled before they place the next. Flood is
// clients that wait for the 202 only, as the web's do. Open is orders at a rate, whatever became of the ones before.
// Rebalance is an open loop while instances come and go. Memory is a closed loop of many orders, which watches what the
// services keep.
const (
	Idle      Kind = "idle"
	Closed    Kind = "closed"
	Flood     Kind = "flood"
	Open      Kind = "open"
	Rebalance Kind = "rebalance"
	Memory    Kind = "memory"
)

// What two kinds do not leave to the command line.
const (
	rebalanceRate = 300
	memoryClients = 64
)

// Scenario is one load, for a time.
type Scenario struct {
	Kind   Kind
	N      float64 // clients, or orders per second of an open loop
	Length time.Duration
	Orders int // of clients: how many in all, instead of how long
}

// String is how the scenario is written on the command line.
func (s Scenario) String() string {
	if !s.clients() && s.Kind != Open {
		return string(s.Kind)
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
		switch s.Kind {
		case Rebalance:
			s = rebalanceFor(max(length, 40*time.Second))
		case Memory:
			s = memoryOf(200_000)
		}
		if (s.clients() || s.Kind == Open) && len(rest) > 0 {
			s.N, err = strconv.ParseFloat(rest[0], 64)
			rest = rest[1:]
		}
		if err == nil && len(rest) > 0 && (s.clients() || s.Kind == Memory) {
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
			return nil, fmt.Errorf("scenario %q: want idle, closed:CLIENTS, flood:CLIENTS, open:RATE or rebalance, each with :DURATION if it is to be another; or closed:CLIENTS:ORDERS, flood:CLIENTS:ORDERS or memory:ORDERS", text)
		}
		out = append(out, s)
	}
	return out, nil
}

// Profiled is how long profiles are taken: of a number of orders nobody knows how long they take.
func (s Scenario) Profiled() time.Duration {
	if s.Orders > 0 {
		return min(s.Length, 5*time.Second)
	}
	return s.Length
}

func rebalanceFor(length time.Duration) Scenario {
	return Scenario{Kind: Rebalance, N: rebalanceRate, Length: length}
}

func memoryOf(orders int) Scenario {
	return Scenario{Kind: Memory, N: memoryClients, Length: time.Minute, Orders: orders}
}

// brief is the scenario as it is run to see that it works.
func (s Scenario) brief() Scenario {
	switch s.Kind {
	case Rebalance:
		s.Length = min(s.Length, 8*time.Second)
	case Memory:
		s.Orders = min(s.Orders, 400)
	default:
		s.Length, s.Orders = time.Second, 0
	}
	return s
}

func (s Scenario) validate() error {
	switch s.Kind {
	case Idle, Rebalance:
	case Memory:
		if s.Orders < 1 {
			return fmt.Errorf("%s: want a number of orders", s)
		}
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
	case s.Kind == Flood && s.Orders > driver.FloodMost:
		return fmt.Errorf("%s: want %d orders at most", s, driver.FloodMost)
	}
	return nil
}

// WarmUp is the scenario's load before it counts, no longer than itself. A flood's is that of a closed loop: its
// backlog would have to drain first.
func (s Scenario) WarmUp(length time.Duration) Scenario {
	switch s.Kind {
	case Flood, Memory:
		s.Kind = Closed
	case Rebalance:
		s.Kind = Open
	}
	s.Length, s.Orders = min(length, s.Length), 0
	return s
}
