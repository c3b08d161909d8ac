package driver

import (
	"math/rand/v2"
	"time"
)

// Evenly spreads orders at the rate per second over length.
func Evenly(rate float64, length time.Duration) []time.Duration {
	schedule := make([]time.Duration, int(rate*length.Seconds()))
	for i := range schedule {
		schedule[i] = time.Duration(float64(i) / rate * float64(time.Second))
	}
	return schedule
}

// Independently is a Poisson process: orders of many users who know nothing of each other.
func Independently(rnd *rand.Rand, rate float64, length time.Duration) []time.Duration {
	var schedule []time.Duration
	at := 0.0
	for {
		at += rnd.ExpFloat64() / rate
		if at >= length.Seconds() {
			return schedule
		}
		schedule = append(schedule, time.Duration(at*float64(time.Second)))
	}
}
