package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/report"
	"github.com/converge-dev/converge/lab/bench/sqlfloor"
	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/bench/verify"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// floor measures the SQL work alone, in batches as large as a closed loop's clients, and larger.
func (b *bench) floor(ctx context.Context, dbs testbed.Databases, run *report.ModeRun) error {
	for _, service := range workload.Services {
		if err := pg.Migrate(ctx, dbs[service], outbox.Migration(), inbox.Migration(), pg.Migration{Name: service, FS: migrations.For(service)}); err != nil {
			return err
		}
	}
	if err := errors.Join(workload.InsertStock(ctx, dbs["inventory"]), workload.Fund(ctx, dbs["payment"])); err != nil {
		return err
	}
	s := measure.System{Servers: b.Servers, Databases: dbs}
	made, acked := workload.NewOrders(b.opts.Seed, 0), map[uuid.UUID]struct{}{}
	for _, size := range plan.FloorBatches {
		res := report.Result{Scenario: fmt.Sprintf("batches of %d", size)}
		b.say("%s", res.Scenario)
		load := func(length time.Duration) (int, error) {
			until := time.Now().Add(length)
			return sqlfloor.Run(ctx, dbs, func() []sqlfloor.Order {
				if time.Now().After(until) {
					return nil
				}
				batch := make([]sqlfloor.Order, size)
				for i := range batch {
					batch[i] = sqlfloor.Encode(made.Next())
					acked[batch[i].ID] = struct{}{}
				}
				return batch
			})
		}
		if _, err := load(b.opts.FloorLength / 5); err != nil {
			return err
		}
		before, err := s.Look(ctx, true)
		if err != nil {
			return err
		}
		began := time.Now()
		if res.Orders, err = load(b.opts.FloorLength); err != nil {
			return err
		}
		res.Seconds = time.Since(began).Seconds()
		res.OrdersPerSecond = float64(res.Orders) / res.Seconds
		after, err := s.Look(ctx, false)
		if err != nil {
			return err
		}
		res.Used(after.Since(before, res.Orders))
		if res.Violations, err = verify.Settled(ctx, dbs, verify.Promised{Acked: acked, Stock: workload.Stock}, 0); err != nil {
			return err
		}
		b.say("  %s", res.Line())
		run.Results = append(run.Results, res)
	}
	return nil
}
