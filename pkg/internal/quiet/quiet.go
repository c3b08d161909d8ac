// Package quiet keeps a log readable through an outage: a fault that repeats is logged once, then every half a minute
// with a count, and once more when it is over.
package quiet

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Every is how often a fault that goes on is logged again.
const Every = 30 * time.Second

// Log remembers which faults are going on. The zero value is ready; it is safe for concurrent use.
type Log struct {
	mu     sync.Mutex
	faults map[string]*fault
}

type fault struct {
	since, said time.Time
	times       int
}

// Warn logs a fault when it is the first of its key, and then at most once every half a minute, with how often it has
// occurred ("times") and for how long ("for").
func (q *Log) Warn(ctx context.Context, log *slog.Logger, key, msg string, args ...any) {
	now := time.Now()
	q.mu.Lock()
	f := q.faults[key]
	if f == nil {
		if q.faults == nil {
			q.faults = map[string]*fault{}
		}
		f = &fault{since: now}
		q.faults[key] = f
	}
	f.times++
	first, due := f.times == 1, now.Sub(f.said) >= Every
	if due {
		f.said = now
	}
	times, lasted := f.times, now.Sub(f.since)
	q.mu.Unlock()
	switch {
	case first:
		log.WarnContext(ctx, msg, args...)
	case due:
		log.WarnContext(ctx, msg, append(slices.Clip(args), "times", times, "for", lasted.Round(time.Second).String())...)
	}
}

// Over logs that the fault of a key is over, if [Log.Warn] has logged one, and forgets it.
func (q *Log) Over(ctx context.Context, log *slog.Logger, key, msg string, args ...any) {
	q.mu.Lock()
	f := q.faults[key]
	delete(q.faults, key)
	q.mu.Unlock()
	if f != nil {
		log.InfoContext(ctx, msg, append(slices.Clip(args), "times", f.times, "for", time.Since(f.since).Round(time.Millisecond).String())...)
	}
}
