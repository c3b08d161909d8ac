package report

import (
	"testing"
	"time"

	"github.com/converge-dev/converge/lab/bench/driver"
)

func TestBacklogPeak(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	got := backlogPeak([]driver.Sample{
		{Sent: at(0), Acked: at(1), Settled: at(4)}, {Sent: at(0), Acked: at(2), Settled: at(9)}, {Sent: at(0), Acked: at(4), Settled: at(6)}, // the third comes as the first goes
		{Sent: at(0), Acked: at(5), Settled: at(3)}, // settled before its answer: never waited
		{Sent: at(0), Acked: at(5)},                 // never settled
		{Sent: at(8), Acked: at(10), Settled: at(11)},
	})
	if got != 3 {
		t.Errorf("backlog %d, want 3", got)
	}
}
