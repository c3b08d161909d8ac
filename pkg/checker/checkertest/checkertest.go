// Package checkertest holds services in a test to what they must agree about.
package checkertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
)

const (
	// grace is how long a transaction of a test may take, and what is waited for at least.
	grace = time.Second
	// patience is how long services may take to come to rest.
	patience = 30 * time.Second
	// pause is between two checks.
	pause = 50 * time.Millisecond
)

// Verify checks until everything that was there at the call has come to rest, and fails the test with each finding.
// It also fails if something is still on its way after half a minute, or if a part of the check cannot look. Nothing
// is repaired. The configuration's Grace is a second, if it is zero: in one process clocks do not differ, so it only
// has to cover the longest transaction. What is judged is true for good: there is no event left that could change it.
func Verify(t testing.TB, cfg checker.Config) {
	t.Helper()
	if cfg.Grace == 0 {
		cfg.Grace = grace
	}
	c, err := checker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var last *checker.Report // of the last check that could look
	for {
		r, err := c.Check(ctx, checker.Request{By: t.Name()})
		if err == nil {
			last = &r
		}
		for _, f := range r.Findings {
			t.Error(f)
		}
		switch {
		case len(r.Findings) > 0:
			if r.More > 0 {
				t.Errorf("and %d more", r.More)
			}
			return
		case err == nil && r.InFlight == 0 && !r.Watermark.Before(since):
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last == nil || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("the check could not look: %v", err)
			}
			t.Fatalf("%d of %d are still on their way; what changed since %s was not judged", last.InFlight, last.Checked, last.Watermark)
		}
	}
}
