// Package testbed builds the services and starts what they run on: Kafka, PostgreSQL, and a database for each service.
package testbed

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/pg"
)

// Testbed is what a system is started on.
type Testbed struct {
	Servers Servers
	bins    string
}

// Open makes the directory of the report, builds the services and starts the servers, with so many partitions for every
// topic. It says on say how it goes. What it made is to be closed even after an error.
func Open(ctx context.Context, dir string, postgres, partitions int, say func(format string, args ...any)) (t *Testbed, err error) {
	t = &Testbed{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return t, err
	}
	if t.bins, err = os.MkdirTemp("", "converge-bench-"); err != nil {
		return t, err
	}
	say("building the services")
	if err := rig.Build(ctx, t.bins, workload.Services[:]); err != nil {
		return t, err
	}
	say("starting %s and %s", rig.KafkaImage, rig.PostgresImage)
	t.Servers, err = startServers(ctx, postgres, partitions)
	return t, err
}

// Close removes the servers and what was built. It does so after ctx has ended, too.
func (t *Testbed) Close(ctx context.Context) error {
	err := t.Servers.Remove(context.WithoutCancel(ctx))
	if t.bins != "" {
		err = errors.Join(err, os.RemoveAll(t.bins))
	}
	return err
}

// Command starts a service of the system.
func (t *Testbed) Command(service string) []string { return []string{filepath.Join(t.bins, service)} }

// Databases are the services' own, by service. Only the lab looks into all of them.
type Databases map[string]*pgxpool.Pool

// Close closes the pools.
func (d Databases) Close() {
	for _, pool := range d {
		pool.Close()
	}
}

// CreateDatabases makes a database for each service and opens it. What it opened is to be closed even after an error.
func (t *Testbed) CreateDatabases(ctx context.Context, prefix, suffix string) (urls map[string]string, dbs Databases, err error) {
	urls, dbs = map[string]string{}, Databases{}
	for _, service := range workload.Services {
		if urls[service], err = t.Servers.CreateDatabase(ctx, t.Servers.of(service), prefix+service+suffix); err != nil {
			return urls, dbs, err
		}
		if dbs[service], err = pg.Open(ctx, urls[service], pg.ApplicationName(ApplicationName)); err != nil {
			return urls, dbs, err
		}
	}
	return urls, dbs, nil
}

// ApplicationName tells the lab's connections to PostgreSQL from those of the services.
const ApplicationName = "bench"

// DropDatabases drops the services' databases that have this prefix and suffix, and their roles.
func (t *Testbed) DropDatabases(ctx context.Context, prefix, suffix string) error {
	return t.Servers.drop(ctx, prefix, suffix)
}
