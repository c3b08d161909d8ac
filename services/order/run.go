// Package order takes orders over HTTP and settles them: an order begins PENDING, and becomes CONFIRMED or CANCELLED by what
// inventory and payment tell.
package order

import (
	"context"
	"time"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
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
	m := newMetrics()
	return app.Run(ctx, s, app.Service{
		Service:    choreography(m),
		Addr:       "127.0.0.1:8081",
		Migrations: migrations.For("order"),
		Blocks:     []pg.Migration{idempotency.Migration()},
		Setup: func(rt *app.Runtime) error {
			m.register(rt.Metrics)
			p := placer{db: rt.Pool, keys: keys, relay: rt.Relay, metrics: m}
			h := handlers{db: rt.Pool, place: pg.NewBatcher(postingsPerCommit, commitTimeout, p.place).Do}
			h.register(rt.Web.API)
			rt.Go(idempotency.Pruner{DB: rt.Pool, Keys: keys, Log: rt.Log}.Run)
			return nil
		},
	})
}
