package inventory

import (
	"context"
	"time"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/facts"
)

// Run runs the service until ctx ends, with settings from getenv.
func Run(ctx context.Context, getenv func(string) string) error {
	s := app.NewSettings(getenv)
	cfg := Config{AnyPrice: s.OneOf("PRICE_CHECK", "exact",
		"exact: an order whose amount is not what its products cost is refused; off: whatever its amount is", "exact", "off") == "off"}
	reread := s.Duration("AUDIT_REREAD", 24*time.Hour, time.Minute, 30*24*time.Hour,
		"within which audits read again all reservations and movements that were audited before; a stock with a million of them or less is read whole each time")
	return app.Run(ctx, s, app.Service{
		Service:    cfg.choreography(),
		Addr:       "127.0.0.1:8082",
		Migrations: migrations.For("inventory"),
		Setup: func(rt *app.Runtime) error {
			register(rt.Web.API, rt.Pool, rt.Relay)
			(&repairer{db: rt.Pool, relay: rt.Relay}).register(rt.Web.API)
			facts.Server{
				DB: rt.Pool, Broker: rt.Broker, Service: cfg.choreography(), Source: source, Stopping: rt.Stopping,
				Audit: newAuditor(rt.Pool, reread).audit, Restored: facts.RaiseVersions("products"),
				Shown: []facts.Shown{catalogue},
			}.Register(rt.Web.API)
			facts.Retelling{DB: rt.Pool, Page: retell, Only: retellOnly, Wake: rt.Relay.Wake}.Register(rt.Web.API)
			return nil
		},
	})
}
