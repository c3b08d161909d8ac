package app

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// stopwatch tells where a stop has spent its time. It is safe for concurrent use.
type stopwatch struct {
	mu    sync.Mutex
	began time.Time // zero until the stop begins
	last  time.Time
	laps  []string
}

// newStopwatch starts with ctx's end.
func newStopwatch(ctx context.Context) *stopwatch {
	w := &stopwatch{}
	context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.began = time.Now()
		w.last = w.began
	})
	return w
}

// lap notes what has ended just now.
func (w *stopwatch) lap(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began.IsZero() {
		return
	}
	now := time.Now()
	w.laps = append(w.laps, fmt.Sprintf("%s %.1f s", what, now.Sub(w.last).Seconds()))
	w.last = now
}

// read returns what has ended, and how long the stop has taken so far.
func (w *stopwatch) read() (laps []string, all time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.began.IsZero() {
		return nil, 0
	}
	return w.laps, time.Since(w.began)
}

// within calls end and waits for it, but not for longer than limit: then it ends with the process.
func within(limit time.Duration, end func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		end()
	}()
	select {
	case <-done:
	case <-time.After(limit):
	}
}
