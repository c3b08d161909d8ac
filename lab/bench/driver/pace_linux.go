package driver

import (
	"syscall"
	"time"
)

// SleepUntil blocks its thread until t, to within a tenth of a millisecond. The runtime's timers wake up to one
// millisecond late when nothing else goes on, which would be seen in every latency of a slow open loop.
func SleepUntil(t time.Time) {
	for {
		left := time.Until(t)
		if left <= 0 {
			return
		}
		ts := syscall.NsecToTimespec(int64(left))
		_ = syscall.Nanosleep(&ts, nil) // interrupted: the loop sleeps the rest
	}
}
