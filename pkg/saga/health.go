package saga

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// unwell is how long a group may be without membership, or without one of its topics, before that is a failure: a
// broker's restart is none.
const unwell = 10 * time.Second

// Health tells whether a service's consumer groups can consume. It is safe for concurrent use.
type Health struct {
	mu     sync.Mutex
	groups map[string]*groupHealth
}

type groupHealth struct {
	out     time.Time            // since when it has been no member; zero: it is one
	missing map[string]time.Time // topics, since when
}

// NewHealth returns a Health that is well: no group has begun.
func NewHealth() *Health { return &Health{groups: map[string]*groupHealth{}} }

// Check fails when a group has had no membership, or a topic of it has been missing, for more than ten seconds. The
// error names them.
func (h *Health) Check(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(h.groups)) {
		g := h.groups[name]
		if !g.out.IsZero() && time.Since(g.out) > unwell {
			errs = append(errs, fmt.Errorf("consumer group %s has had no membership for %s", name, time.Since(g.out).Round(time.Second)))
		}
		var topics []string
		for _, t := range slices.Sorted(maps.Keys(g.missing)) {
			if time.Since(g.missing[t]) > unwell {
				topics = append(topics, t)
			}
		}
		if len(topics) > 0 {
			errs = append(errs, fmt.Errorf("consumer group %s misses topics: %s", name, strings.Join(topics, ", ")))
		}
	}
	return errors.Join(errs...)
}

// observe takes what a group's member tells.
func (h *Health) observe(state broker.GroupState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	g := h.groups[state.Group]
	if g == nil {
		g = &groupHealth{out: now}
		h.groups[state.Group] = g
	}
	switch {
	case state.Member:
		g.out = time.Time{}
	case g.out.IsZero():
		g.out = now
	}
	missing := map[string]time.Time{}
	for _, t := range state.Missing {
		if missing[t] = now; !g.missing[t].IsZero() {
			missing[t] = g.missing[t]
		}
	}
	g.missing = missing
}
