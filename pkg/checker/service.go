package checker

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// timeout bounds a check of everything.
const timeout = 10 * time.Minute

//go:embed migrations/*.sql
var files embed.FS

// ReadSettings reads what to judge by, and when to check, from the environment: CHECK_GRACE, CHECK_EVERY,
// CHECK_REPAIR and so on. It reports wrong ones at [app.Settings.Err].
func ReadSettings(s *app.Settings) (cfg Config, plan Schedule) {
	cfg = Config{
		Grace: s.Duration("CHECK_GRACE", 30*time.Second, time.Millisecond, time.Hour,
			"how long after its last change an order is judged, beyond what the services are behind: covers clocks that differ"),
		OutboxAfter: s.Duration("CHECK_OUTBOX_AFTER", time.Minute, time.Second, 24*time.Hour, "an event that waits in an outbox for longer is stuck"),
		BrakeShare: s.Float("CHECK_BRAKE_SHARE", brakeShare, 0.0001, 1,
			"a larger share of the compared orders is not repaired before somebody confirms it (converge check -repair -confirm)"),
		BrakeFloor: s.Int("CHECK_BRAKE_FLOOR", brakeFloor, 1, 1_000_000, "so few are repaired whatever share they are"),
		MaxRepairs: s.Int("CHECK_MAX_REPAIRS", maxRepairs, 1, 1_000_000, "one check makes no more repairs, also when they are confirmed"),
	}
	plan = Schedule{
		Every:    s.Duration("CHECK_EVERY", time.Minute, 0, 24*time.Hour, "how often to check the orders of CHECK_WINDOW; 0: only when asked"),
		Window:   s.Duration("CHECK_WINDOW", time.Hour, time.Minute, 30*24*time.Hour, "how old the orders are that are checked so often"),
		AllEvery: s.Duration("CHECK_ALL_EVERY", time.Hour, time.Second, 30*24*time.Hour, "how often to check all orders, the stock and the ledger, the first time at the start"),
		Repair:   s.Bool("CHECK_REPAIR", false, "repair what a check of its own finds, and not only tell"),
	}
	return cfg, plan
}

// App is a checker as a service of its own: it checks by the schedule and when it is asked, and has an API, metrics
// and a database, in which it keeps what it has found and repaired, what was acknowledged, which databases it has
// seen, and when each part has looked last. It finds dead letters in Kafka, and puts them back. Journal, Seen, Saw,
// Acknowledged, Letters, Redrive and Log of the configuration are the service's own.
func App(name, addr string, cfg Config, plan Schedule) app.Service {
	return app.Service{
		Service:    saga.Service{Name: name},
		Addr:       addr,
		Migrations: pg.Dir(files, "migrations"),
		Timeout:    timeout,
		Setup: func(rt *app.Runtime) error {
			if err := cfg.validate(); err != nil {
				return fmt.Errorf("declare what is checked: %w", err)
			}
			box := newMailbox(rt.Broker)
			cfg.Log, cfg.Letters, cfg.Redrive = rt.Log, box.letters, box.redrive
			records := &records{db: rt.Pool}
			m := newMetrics(rt.Metrics, cfg)
			rt.Go(func(ctx context.Context) error { return m.sight.recall(ctx, records, rt.Log) })
			r := newRunner(cfg, plan, records, m, rt.Log)
			(&handlers{runner: r, records: records, services: cfg.Services}).register(rt.Web.API)
			rt.Go(r.run)
			rt.Go(records.prune)
			return nil
		},
	}
}
