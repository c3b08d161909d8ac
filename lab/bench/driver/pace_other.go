//go:build !linux

package driver

import "time"

// SleepUntil blocks until t, to within what the runtime's timers can do.
func SleepUntil(t time.Time) {
	if left := time.Until(t); left > 0 {
		<-time.After(left)
	}
}
