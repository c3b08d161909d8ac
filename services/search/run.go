package search

import (
	"context"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
)

// Run runs the service until ctx ends, with settings from getenv.
func Run(ctx context.Context, getenv func(string) string) error {
	return app.Run(ctx, app.NewSettings(getenv), app.Service{
		Service:    Choreography(),
		Addr:       "127.0.0.1:8085",
		Migrations: migrations.For("search"),
		Blocks:     []pg.Migration{readside.Migration()},
		Setup: func(rt *app.Runtime) error {
			register(rt.Web.API, rt.Pool, readside.Start(Side(), rt))
			facts.Server{DB: rt.Pool, Broker: rt.Broker, Service: Choreography(), Stopping: rt.Stopping, Shown: shown}.RegisterShown(rt.Web.API)
			return nil
		},
	})
}
