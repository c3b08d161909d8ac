package measure

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/lab/bench/driver"
)

// Nothing settles for 2 s after a join; a crash holds one order that was placed before it.
func TestDisturbances(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	var samples []driver.Sample
	for s := 0.0; s < 10; s += 0.5 {
		took := 0.1
		switch {
		case s >= 2 && s < 4:
			took = 4.1 - s
		case s == 6.5:
			took = 5
		}
		samples = append(samples, driver.Sample{Sent: at(s), Acked: at(s), Settled: at(s + took)})
	}
	samples = append(samples, driver.Sample{Sent: at(9), Acked: at(9)}) // never settles
	got := Disturbances(samples, []Mark{{Steady, at(0)}, {Joined, at(2)}, {Killed, at(7)}}, at(10))
	want := []Disturbance{
		{Event: Steady, At: 0, Orders: 4, LongestPause: 0.5, LongestOrder: 0.1},
		{Event: Joined, At: 2, Orders: 9, LongestPause: 2.1, LongestOrder: 2.1},
		{Event: Killed, At: 7, Orders: 6, LongestPause: 0.5, LongestOrder: 5},
	}
	round := cmp.Comparer(func(a, b float64) bool { return a-b < 0.02 && b-a < 0.02 })
	if diff := cmp.Diff(want, got, round); diff != "" {
		t.Error(diff)
	}
}
