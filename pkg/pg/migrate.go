package pg

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migration is one component's schema: goose files (00001_name.sql) at the root of FS. Each component counts its
// versions in a table of its own, "<Name>_migrations", so that a service's schema and the building blocks' evolve
// apart.
type Migration struct {
	Name string
	FS   fs.FS
}

// Dir is one directory of files that were compiled in. It panics on a name that is no directory of them: that is a
// mistake of the program.
func Dir(files embed.FS, name string) fs.FS {
	sub, err := fs.Sub(files, name)
	if err == nil {
		_, err = fs.Stat(files, name)
	}
	if err != nil {
		panic("no directory of embedded files: " + err.Error())
	}
	return sub
}

// Migrate brings the database up to date, in the order given. It holds an advisory lock, so any number of instances may
// start at once: one migrates, the others wait and find nothing to do. A failed file leaves the earlier ones applied. A
// server that goes away in the middle is waited for, for as long as ctx lives.
func Migrate(ctx context.Context, pool *pgxpool.Pool, ms ...Migration) error {
	return MigrateNotify(ctx, pool, nil, ms...)
}

// MigrateNotify is [Migrate] that calls failed after each try that a server which went away made fail.
func MigrateNotify(ctx context.Context, pool *pgxpool.Pool, failed func(error), ms ...Migration) error {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // hands its connections back to the pool, which the caller owns

	for _, m := range ms {
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 120))
		if err != nil {
			return fmt.Errorf("migrate %s: %w", m.Name, err)
		}
		p, err := goose.NewProvider(goose.DialectPostgres, db, m.FS,
			goose.WithTableName(m.Name+"_migrations"), goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
		if err != nil {
			return fmt.Errorf("migrate %s: %w", m.Name, err)
		}
		up := func() error { _, err := p.Up(ctx); return err }
		if err := patiently(ctx, failed, up); err != nil {
			return fmt.Errorf("migrate %s: %w", m.Name, err)
		}
	}
	return nil
}
