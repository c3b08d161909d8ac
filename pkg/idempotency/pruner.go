package idempotency

import (
	"cmp"
	"context"
	"log/slog"
	"time"
)

// Pruner deletes expired keys from time to time. Any number of instances may run.
type Pruner struct {
	DB       Execer
	Keys     Keys
	Interval time.Duration // default 1 min
	Step     int           // keys in one transaction, default 1000: what it locks and writes at once stays small
	Log      *slog.Logger  // default discards
}

// Run prunes until ctx ends, and then returns nil. A fault is logged and tried again after the interval: expired keys
// count as absent all the same.
func (p Pruner) Run(ctx context.Context) error {
	log := cmp.Or(p.Log, slog.New(slog.DiscardHandler))
	tick := time.NewTicker(cmp.Or(p.Interval, time.Minute))
	defer tick.Stop()
	for {
		if n, err := p.prune(ctx); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "idempotency keys not pruned, trying again later", slog.Int("deleted", n), slog.Any("error", err))
		} else if n > 0 {
			log.DebugContext(ctx, "idempotency keys pruned", slog.Int("deleted", n))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// prune deletes all that has expired, step by step.
func (p Pruner) prune(ctx context.Context) (total int, err error) {
	step := cmp.Or(p.Step, 1000)
	for n := step; n == step && err == nil; total += n {
		n, err = p.Keys.Prune(ctx, p.DB, step)
	}
	return total, err
}
