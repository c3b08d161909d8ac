package driver

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestSchedules(t *testing.T) {
	t.Parallel()
	if got := Evenly(4, time.Second); !slices.Equal(got, []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond}) {
		t.Errorf("evenly: %v", got)
	}
	// Of a Poisson process, the number of orders and the variance of their distances are known.
	const rate, length = 1000.0, 100 * time.Second
	got := Independently(rand.New(rand.NewPCG(1, 2)), rate, length)
	if n := float64(len(got)); n < 0.98*rate*length.Seconds() || n > 1.02*rate*length.Seconds() || !slices.IsSorted(got) || got[len(got)-1] >= length {
		t.Fatalf("%d orders until %s; want about %.0f, sorted, before %s", len(got), got[len(got)-1], rate*length.Seconds(), length)
	}
	var squares float64
	for i := 1; i < len(got); i++ {
		d := (got[i]-got[i-1]).Seconds()*rate - 1
		squares += d * d
	}
	if v := squares / float64(len(got)-1); v < 0.95 || v > 1.05 {
		t.Errorf("variance of the distances %.3f, want 1: they are not independent", v)
	}
}

func TestSleepUntilIsNotEarly(t *testing.T) {
	t.Parallel()
	due := time.Now().Add(3 * time.Millisecond)
	if SleepUntil(due); time.Now().Before(due) {
		t.Error("woke too early")
	}
}
