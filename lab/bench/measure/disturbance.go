package measure

import (
	"slices"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
)

// Disturbance is what one event of a rebalance scenario came to, until the next.
type Disturbance struct {
	Event        string  `json:"event"`
	At           float64 `json:"atSeconds"` // since the load began
	Orders       int     `json:"orders"`    // that settled
	LongestPause float64 `json:"longestPauseSeconds"`
	LongestOrder float64 `json:"longestOrderSeconds"`
}

// The events of a rebalance scenario.
const (
	Steady = "none yet"
	Joined = "an instance of each joins"
	Left   = "it leaves"
	Rejoin = "another joins"
	Killed = "it is killed, and started again"
)

// Mark is when an event began.
type Mark struct {
	Event string
	At    time.Time
}

// Disturbances tells for each event how long nothing settled at most before the next one, and how long any order took
// that settled then: one that two events met counts for the later.
func Disturbances(samples []driver.Sample, marks []Mark, end time.Time) []Disturbance {
	out := make([]Disturbance, len(marks))
	for i, m := range marks {
		until := end
		if i+1 < len(marks) {
			until = marks[i+1].At
		}
		d := Disturbance{Event: m.Event, At: m.At.Sub(marks[0].At).Seconds()}
		settled := []time.Time{m.At, until}
		for _, s := range samples {
			if s.Settled.IsZero() {
				continue
			}
			last := i == len(marks)-1 // to it belongs what settles after the load, too
			if !s.Settled.Before(m.At) && (last || s.Settled.Before(until)) {
				d.LongestOrder = max(d.LongestOrder, s.Settled.Sub(s.Sent).Seconds())
			}
			if !s.Settled.Before(m.At) && s.Settled.Before(until) {
				d.Orders++
				settled = append(settled, s.Settled)
			}
		}
		d.LongestPause = longestGap(settled).Seconds()
		out[i] = d
	}
	return out
}

// longestGap sorts the times and returns the longest one between two of them.
func longestGap(times []time.Time) time.Duration {
	slices.SortFunc(times, time.Time.Compare)
	var longest time.Duration
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}
