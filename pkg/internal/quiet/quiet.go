// Package quiet logs a fault that comes again and again once, then now and then with a count, and once when it is over.
package quiet

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Every is how long a fault that lasts is not logged again.
const Every = 30 * time.Second

// Fault is one thing that can fail. It is safe for concurrent use.
type Fault struct {
	log       *slog.Logger
	bad, good string
	attrs     []slog.Attr

	mu     sync.Mutex
	since  time.Time // zero: all is well
	logged time.Time
	times  int // since it began
}

// New returns a fault that is logged as a warning with the message bad, and with good when it is over.
func New(log *slog.Logger, bad, good string, attrs ...slog.Attr) *Fault {
	return &Fault{log: log, bad: bad, good: good, attrs: attrs}
}

// Is tells that the thing has failed.
func (f *Fault) Is(ctx context.Context, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	f.times++
	if !f.logged.IsZero() && now.Sub(f.logged) < Every {
		return
	}
	f.logged = now
	attrs := append(f.attrs[:len(f.attrs):len(f.attrs)], slog.Any("error", err))
	if f.times > 1 {
		attrs = append(attrs, slog.Int("times", f.times), slog.Duration("for", now.Sub(f.since).Round(time.Second)))
	}
	f.log.LogAttrs(ctx, slog.LevelWarn, f.bad, attrs...)
}

// Over tells that the thing works. It logs only after a failure.
func (f *Fault) Over(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() {
		return
	}
	attrs := append(f.attrs[:len(f.attrs):len(f.attrs)], slog.Int("times", f.times), slog.Duration("for", time.Since(f.since).Round(time.Second)))
	f.since, f.logged, f.times = time.Time{}, time.Time{}, 0
	f.log.LogAttrs(ctx, slog.LevelInfo, f.good, attrs...)
}
