package measure

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/lab/bench/testbed"
)

// Statement is one of the statements that a server spent most of its time on.
type Statement struct {
	Database string  `json:"database"`
	Calls    int64   `json:"calls"`
	Rows     float64 `json:"rowsPerCall"`
	MeanMS   float64 `json:"meanMs"`
	TotalMS  float64 `json:"totalMs"`
	SQL      string  `json:"sql"`
}

// Work is what the PostgreSQL servers did.
type Work struct {
	Statements   int64       `json:"statements"`
	Transactions int64       `json:"transactions"`
	RoundTrips   int64       `json:"roundTrips"` // of the services; 0 where they are not known
	WALBytes     int64       `json:"walBytes"`
	WALSyncs     int64       `json:"walSyncs"`
	Top          []Statement `json:"top"`
}

const topStatements = 12

// topSQL leaves out what runs outside of business: BEGIN and COMMIT are counted as transactions.
const topSQL = `SELECT d.datname, s.calls, s.rows::float8 / s.calls, s.mean_exec_time, s.total_exec_time, s.query
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname <> 'postgres' AND s.calls > 0
ORDER BY s.total_exec_time DESC`

// pg_stat_io tells of a backend's work once in a while, when it is idle; pg_stat_force_next_flush would do it for one
// only.
const serverSQL = `SELECT
    (SELECT coalesce(sum(xact_commit), 0)::bigint FROM pg_stat_database WHERE datname <> 'postgres'),
    (SELECT wal_bytes::bigint FROM pg_stat_wal),
    (SELECT coalesce(sum(fsyncs), 0)::bigint FROM pg_stat_io WHERE object = 'wal')`

// resetStatements makes the servers count anew.
func resetStatements(ctx context.Context, s testbed.Servers) error {
	return s.Each(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `SELECT pg_stat_statements_reset()`)
		return err
	})
}

// workOf adds up what the servers have done: statements since the reset, the rest since their start.
func workOf(ctx context.Context, s testbed.Servers) (Work, error) {
	var w Work
	err := s.Each(ctx, func(conn *pgx.Conn) error {
		var commits, bytes, syncs int64
		if err := conn.QueryRow(ctx, serverSQL).Scan(&commits, &bytes, &syncs); err != nil {
			return err
		}
		w.Transactions, w.WALBytes, w.WALSyncs = w.Transactions+commits, w.WALBytes+bytes, w.WALSyncs+syncs
		rows, _ := conn.Query(ctx, topSQL) // the error surfaces in the collector
		top, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Statement])
		w.Top = append(w.Top, top...)
		return err
	})
	for i := range w.Top {
		w.Top[i].SQL = strings.Join(strings.Fields(w.Top[i].SQL), " ")
		w.Statements += w.Top[i].Calls
	}
	slices.SortFunc(w.Top, func(a, b Statement) int { return int(b.TotalMS - a.TotalMS) })
	w.Top = w.Top[:min(topStatements, len(w.Top))]
	return w, err
}

// since is the work after an earlier look.
func (w Work) since(before Work) Work {
	w.Transactions -= before.Transactions
	w.WALBytes -= before.WALBytes
	w.WALSyncs -= before.WALSyncs
	return w
}
