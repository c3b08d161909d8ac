package profile

import (
	"context"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/facts"
)

// Run runs the service until ctx ends, with settings from getenv.
func Run(ctx context.Context, getenv func(string) string) error {
	return app.Run(ctx, app.NewSettings(getenv), app.Service{
		Service:    Choreography(),
		Addr:       "127.0.0.1:8084",
		Migrations: migrations.For("profile"),
		Setup: func(rt *app.Runtime) error {
			register(rt.Web.API, rt.Pool, rt.Relay)
			facts.Identified{DB: rt.Pool, Restored: facts.RaiseVersions("profiles")}.Register(rt.Web.API)
			facts.Server{DB: rt.Pool, Broker: rt.Broker, Service: Choreography(), Stopping: rt.Stopping, Shown: []facts.Shown{shown}}.RegisterShown(rt.Web.API)
			facts.Retelling{DB: rt.Pool, Page: retell, Only: retellOnly, Wake: rt.Relay.Wake}.Register(rt.Web.API)
			return nil
		},
	})
}
