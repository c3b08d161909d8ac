package order

import (
	"context"
	"time"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
)

const (
	postingsPerCommit = 256
	commitTimeout     = 10 * time.Second
)

// Run runs the order service until ctx ends.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	keys := idempotency.Keys{Retention: s.Duration("ORDER_IDEMPOTENCY_TTL", 24*time.Hour, time.Minute, 30*24*time.Hour,
		"how long the answer to a POST with an Idempotency-Key is kept")}
	deadline := s.Duration("ORDER_DEADLINE", 15*time.Minute, time.Second, 30*24*time.Hour,
		"how long an order may be PENDING; one that is for longer is cancelled as expired")
	most := s.Int("ORDER_WAITERS", 5000, 1, 100_000,
		"requests that may wait for what becomes of an order at once, streams too; more get a 503, and a POST /orders is answered at once")
	m, waits := newMetrics(), newWaiters(most)
	return app.Run(ctx, s, app.Service{
		Service:    waking(m, waits),
		Addr:       "127.0.0.1:8081",
		Migrations: migrations.For("order"),
		Blocks:     []pg.Migration{idempotency.Migration()},
		Setup: func(rt *app.Runtime) error {
			m.register(rt.Metrics)
			waits.register(rt.Metrics)
			rt.Metrics.MustRegister(newCancelling(rt.Pool))
			p := placer{db: rt.Pool, keys: keys, relay: rt.Relay, metrics: m}
			c := &commands{db: rt.Pool, relay: rt.Relay, metrics: m, waits: waits, now: clock.Now}
			h := handlers{
				db: rt.Pool, place: pg.NewBatcher(postingsPerCommit, commitTimeout, p.place).Do, cancel: c.request, reconcile: c.reconcile,
				waits: waits,
			}
			h.register(rt.Web.API)
			facts.Server{DB: rt.Pool, Broker: rt.Broker, Service: choreography(m), Source: source, Stopping: rt.Stopping}.Register(rt.Web.API)
			rt.Go(func(ctx context.Context) error { return waits.run(ctx, rt.Pool, rt.Log) })
			rt.Go(newSweeper(c, deadline, rt.Log).run)
			rt.Go(idempotency.Pruner{DB: rt.Pool, Keys: keys, Log: rt.Log}.Run)
			return nil
		},
	})
}
