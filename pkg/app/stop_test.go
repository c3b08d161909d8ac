package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// What holds up the end of a stop, such as a connection that is not given back, does not hold up the process.
func TestAStopDoesNotWaitForWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		began := time.Now()
		within(closeLimit, func() { <-never })
		if took := time.Since(began); took != closeLimit {
			t.Errorf("it took %s", took)
		}
		within(closeLimit, func() {})
		if took := time.Since(began); took != closeLimit {
			t.Errorf("what ends at once took %s more", took-closeLimit)
		}
	})
}

func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		w := newStopwatch(ctx)
		w.lap("nothing stops yet")
		if laps, all := w.read(); laps != nil || all != 0 {
			t.Errorf("before the stop: %v, %s", laps, all)
		}
		time.AfterFunc(time.Second, stop)
		<-time.After(3 * time.Second)
		w.lap("requests")
		<-time.After(500 * time.Millisecond)
		w.lap("relay")
		laps, all := w.read()
		if all != 2500*time.Millisecond || len(laps) != 2 || laps[0] != "requests 2.0 s" || laps[1] != "relay 0.5 s" {
			t.Errorf("%v, %s", laps, all)
		}
	})
}
