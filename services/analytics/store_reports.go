package analytics

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// Reports count the rows of orders that were placed in [$1, $2): they cost what lies in between. An order that is
// cancelled after it was confirmed is cancelled, and brought nothing in.
const (
	ordersSQL = `SELECT date_trunc('hour', created_at, 'UTC') AS hour,
    count(*) FILTER (WHERE cancelled_at IS NULL AND confirmed_at IS NULL), count(*) FILTER (WHERE cancelled_at IS NULL AND confirmed_at IS NOT NULL),
    count(*) FILTER (WHERE cancelled_at IS NOT NULL)
FROM orders WHERE generation = (SELECT serving_generation()) AND created_at >= $1 AND created_at < $2 GROUP BY 1 ORDER BY 1`

	revenueSQL = `SELECT date_trunc('hour', created_at, 'UTC') AS hour, currency, count(*), sum(amount)::text
FROM orders WHERE generation = (SELECT serving_generation()) AND created_at >= $1 AND created_at < $2 AND confirmed_at IS NOT NULL AND cancelled_at IS NULL
GROUP BY 1, 2 ORDER BY 1, 2`

	// Its rows are summed up by kinds of reasons: see refusals.
	refusalsSQL = `SELECT refused_by, refusal, count(*)
FROM orders WHERE generation = (SELECT serving_generation()) AND created_at >= $1 AND created_at < $2 AND refused_at IS NOT NULL
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 10000`

	durationsSQL = `SELECT state, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.9) WITHIN GROUP (ORDER BY ms),
    percentile_cont(0.99) WITHIN GROUP (ORDER BY ms), max(ms)
FROM (SELECT CASE WHEN confirmed_at IS NULL THEN 'CANCELLED' ELSE 'CONFIRMED' END AS state,
        greatest(0, extract(epoch FROM COALESCE(confirmed_at, cancelled_at) - created_at) * 1000)::float8 AS ms
    FROM orders WHERE generation = (SELECT serving_generation()) AND created_at >= $1 AND created_at < $2 AND COALESCE(confirmed_at, cancelled_at) IS NOT NULL) AS settled
GROUP BY 1 ORDER BY 1 DESC`

	cancellationsSQL = `SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms), percentile_cont(0.9) WITHIN GROUP (ORDER BY ms),
    percentile_cont(0.99) WITHIN GROUP (ORDER BY ms), max(ms)
FROM (SELECT greatest(0, extract(epoch FROM cancelled_at - confirmed_at) * 1000)::float8 AS ms
    FROM orders WHERE generation = (SELECT serving_generation()) AND created_at >= $1 AND created_at < $2 AND confirmed_at IS NOT NULL AND cancelled_at IS NOT NULL) AS undone
HAVING count(*) > 0`

	updatesSQL = `SELECT date_trunc('hour', updated_at, 'UTC') AS hour, count(*), count(DISTINCT user_id)
FROM profile_updates WHERE generation = (SELECT serving_generation()) AND updated_at >= $1 AND updated_at < $2 GROUP BY 1 ORDER BY 1`
)

// report reads the rows of a report. What scans a window of a large table is better off with any plan that fits.
func report[T any](ctx context.Context, db *pgxpool.Pool, sql string, from, to time.Time) (rows []T, err error) {
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`SET LOCAL enable_seqscan = on`)
		b.Queue(`SET LOCAL enable_hashjoin = on`)
		b.Queue(`SET LOCAL max_parallel_workers_per_gather = 2`)
		if err := pg.Defer(ctx, tx, &b); err != nil {
			return err
		}
		found, _ := tx.Query(ctx, sql, from, to) // the error surfaces in the collector
		rows, err = pgx.CollectRows(found, pgx.RowToStructByPos[T])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	return rows, nil
}

const reachedSQL = `SELECT EXISTS (SELECT FROM profile_updates WHERE generation = (SELECT serving_generation()) AND user_id = $1 AND version >= $2)`

// reached tells whether a user's profile is here in a version or a later one.
func (h handlers) reached(ctx context.Context, user string, version int64) (ok bool, err error) {
	if err = h.db.QueryRow(ctx, reachedSQL, user, version).Scan(&ok); err != nil {
		err = fmt.Errorf("look for version %d of user %s: %w", version, user, err)
	}
	return ok, err
}
