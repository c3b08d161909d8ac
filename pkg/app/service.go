package app

import (
	"context"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// Service is what makes one service different from the next.
type Service struct {
	saga.Service // name, routes, and what it publishes

	Addr       string // default listen address, host:port
	Migrations fs.FS  // the schema of its own tables: goose files
	// Setup registers the HTTP operations and background work. The database is migrated by then. An error ends the start.
	Setup func(rt *Runtime) error
}

// Runtime is what a service's own parts are built from.
type Runtime struct {
	Pool    *pgxpool.Pool
	Web     *web.Server
	Log     *slog.Logger
	Metrics prometheus.Registerer

	// Wake tells the relay that a transaction with events was committed.
	Wake func()
	// Go runs background work until its context ends at the stop. Its error stops the service.
	Go func(func(ctx context.Context) error)
}
