//go:build !linux

package bench

import "time"

// sleepUntil blocks until t, to within what the runtime's timers can do.
func sleepUntil(t time.Time) {
	if left := time.Until(t); left > 0 {
		<-time.After(left)
	}
}
