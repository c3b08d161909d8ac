package checker

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/facts"
)

const (
	seenSQL = `SELECT service, id, epoch, copy, written FROM databases`

	// What another database has written says nothing of this one.
	sawSQL = `INSERT INTO databases AS d (service, id, epoch, copy, written, seen_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (service) DO UPDATE SET written = greatest(d.written, excluded.written), seen_at = excluded.seen_at
WHERE (d.id, d.epoch, d.copy) = (excluded.id, excluded.epoch, excluded.copy)`

	acceptSQL = `INSERT INTO databases (service, id, epoch, copy, written, seen_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (service) DO UPDATE SET id = excluded.id, epoch = excluded.epoch, copy = excluded.copy, written = excluded.written, seen_at = excluded.seen_at`
)

// seen returns the databases that services are known to answer from.
func (r *records) seen(ctx context.Context) (map[string]facts.Identity, error) {
	rows, _ := r.db.Query(ctx, seenSQL) // the error surfaces in the collector
	known := map[string]facts.Identity{}
	var service string
	var is facts.Identity
	_, err := pgx.ForEachRow(rows, []any{&service, &is.ID, &is.Epoch, &is.Copy, &is.Written}, func() error {
		known[service] = is
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read which databases were seen: %w", err)
	}
	return known, nil
}

// saw remembers the database that a service answers from, if none is known, or how much it has written by now.
// Accepted, it takes the place of the one that is known.
func (r *records) saw(ctx context.Context, service string, is facts.Identity, accept bool) error {
	statement := sawSQL
	if accept {
		statement = acceptSQL
	}
	if _, err := r.db.Exec(ctx, statement, service, is.ID, is.Epoch, is.Copy, is.Written, clock.Now()); err != nil {
		return fmt.Errorf("remember the database of %s: %w", service, err)
	}
	return nil
}
