package checker

import (
	"context"
	"time"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/saga"
)

// checkTimeout bounds a check of everything.
const checkTimeout = 10 * time.Minute

// Run runs the checker until ctx ends.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	url := func(name, def, whose string) string {
		return s.URL(name, def, "where "+whose+" serves HTTP", "http", "https")
	}
	cfg := Config{
		OrderURL:     url("ORDER_URL", "http://127.0.0.1:8081", "order"),
		InventoryURL: url("INVENTORY_URL", "http://127.0.0.1:8082", "inventory"),
		PaymentURL:   url("PAYMENT_URL", "http://127.0.0.1:8083", "payment"),
		Grace: s.Duration("CHECK_GRACE", 30*time.Second, time.Millisecond, time.Hour,
			"how long after its last change an order is judged, beyond what the services are behind: covers clocks that differ"),
		PendingAfter: s.Duration("CHECK_PENDING_AFTER", 20*time.Minute, time.Second, 30*24*time.Hour,
			"an order that is PENDING for longer is stuck; more than order's ORDER_DEADLINE"),
		CancellingAfter: s.Duration("CHECK_CANCELLING_AFTER", 10*time.Minute, time.Second, 30*24*time.Hour, "an order that is CANCELLING for longer is stuck"),
		OutboxAfter:     s.Duration("CHECK_OUTBOX_AFTER", time.Minute, time.Second, 24*time.Hour, "an event that waits in an outbox for longer is stuck"),
		BrakeShare: s.Float("CHECK_BRAKE_SHARE", brakeShare, 0.0001, 1,
			"a larger share of the compared orders is not repaired before somebody confirms it (converge check -repair -confirm)"),
		BrakeFloor: s.Int("CHECK_BRAKE_FLOOR", brakeFloor, 1, 1_000_000, "so few are repaired whatever share they are"),
		MaxRepairs: s.Int("CHECK_MAX_REPAIRS", maxRepairs, 1, 1_000_000, "one check makes no more repairs, also when they are confirmed"),
	}
	plan := schedule{
		every:    s.Duration("CHECK_EVERY", time.Minute, 0, 24*time.Hour, "how often to check the orders of CHECK_WINDOW; 0: only when asked"),
		window:   s.Duration("CHECK_WINDOW", time.Hour, time.Minute, 30*24*time.Hour, "how old the orders are that are checked so often"),
		allEvery: s.Duration("CHECK_ALL_EVERY", time.Hour, time.Second, 30*24*time.Hour, "how often to check all orders, the stock and the ledger, the first time at the start"),
		repair:   s.Bool("CHECK_REPAIR", false, "repair what a check of its own finds, and not only tell"),
	}
	return app.Run(ctx, s, app.Service{
		Service:    saga.Service{Name: "checker"},
		Addr:       "127.0.0.1:8087",
		Migrations: migrations.For("checker"),
		Timeout:    checkTimeout,
		Setup: func(rt *app.Runtime) error {
			box := newMailbox(rt.Broker)
			cfg.Log, cfg.Letters, cfg.Redrive = rt.Log, box.letters, box.redrive
			records := &records{db: rt.Pool}
			m := newMetrics(rt.Metrics)
			rt.Go(func(ctx context.Context) error { return m.sight.recall(ctx, records, rt.Log) })
			r := newRunner(cfg, plan, records, m, rt.Log)
			(&handlers{runner: r, records: records}).register(rt.Web.API)
			rt.Go(r.run)
			rt.Go(records.prune)
			return nil
		},
	})
}
