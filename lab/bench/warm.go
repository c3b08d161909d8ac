package bench

import (
	"context"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// Kafka's JVM compiles what it runs often, which at first takes most of two cores: a broker in operation has long done
// so.
const (
	warmChunk  = 6 * time.Second
	warmAtMost = 150 * time.Second
	coolBelow  = 0.10 // cores that the compiler takes when the broker counts as warm
)

// warmUp puts load on the system until the broker is warm.
func (b *bench) warmUp(ctx context.Context, r *running) error {
	defer r.driver.Tracker.Take()
	if _, err := r.driver.Closed(ctx, 64, 2*b.opts.Warmup); err != nil {
		return err
	}
	if b.opts.Warmup < time.Second { // not for numbers
		return nil
	}
	pid, err := r.Servers.Kafka.PID(ctx)
	if err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < warmAtMost; {
		before, err := rig.ThreadCPU(pid, "CompilerThre")
		if err != nil {
			return err
		}
		from := time.Now()
		if _, err := r.driver.Closed(ctx, 64, warmChunk/2); err != nil {
			return err
		}
		if _, err := r.driver.Flood(ctx, 64, warmChunk/2, 0); err != nil {
			return err
		}
		after, err := rig.ThreadCPU(pid, "CompilerThre")
		if err != nil {
			return err
		}
		share := (after - before) / time.Since(from).Seconds()
		if share < coolBelow {
			return nil
		}
		b.say("  the broker's compiler takes %.2f cores", share)
	}
	return nil
}
