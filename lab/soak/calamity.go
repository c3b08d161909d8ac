package soak

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

const (
	sigStop = syscall.SIGSTOP
	sigCont = syscall.SIGCONT
)

// fault is one way to break something. It runs until what it broke is back.
type fault struct {
	name  string
	lasts func(*Options) time.Duration                                                      // about how long
	on    func(w *world, rnd *rand.Rand) string                                             // chooses a victim
	holds func(on string) []string                                                          // what no other fault may touch meanwhile
	run   func(ctx context.Context, c *calamity, on string, rnd *rand.Rand) (string, error) // returns what there is to note
}

// calamity is what faults work on.
type calamity struct {
	world   *world
	load    *load
	poisons *poisons
}

// between is a duration of at least least and less than most.
func between(rnd *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rnd.Int64N(int64(most-least)))
}

// pause waits, or until ctx ends: a fault has its length, whatever comes of it.
func pause(ctx context.Context, d time.Duration) { rig.Pause(ctx, d) }
