package outbox

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// BenchmarkForget is what it costs to take published events out of the outbox, 100 of 700 bytes at a time: to delete
// them, and to keep them for a while.
func BenchmarkForget(b *testing.B) {
	db := pgtest.New(b, "bench", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, Migration()) })
	conn, err := db.Acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(b.Context(), setUpSQL); err != nil {
		b.Fatal(err)
	}
	for _, way := range []struct{ name, sql string }{{"delete", deleteSQL}, {"keep", keep0SQL}} {
		b.Run(way.name, func(b *testing.B) {
			const n = 100
			var wal int64
			for b.Loop() {
				b.StopTimer()
				rows, _ := conn.Query(b.Context(), `INSERT INTO outbox (topic, key, value, headers)
					SELECT 'order.created', 'key', repeat('x', 500)::bytea, repeat('h', 200) FROM generate_series(1, $1::int) RETURNING id`, n)
				ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if err != nil {
					b.Fatal(err)
				}
				partitions, args := make([]int32, n), []any{ids}
				if way.sql != deleteSQL {
					args = append(args, partitions, ids)
				}
				began := walAt(b, conn)
				b.StartTimer()
				if _, err := conn.Exec(b.Context(), way.sql, args...); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				wal += walAt(b, conn) - began
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/event")
			b.ReportMetric(float64(wal)/float64(b.N*n), "WAL-bytes/event")
		})
	}
}

func walAt(b *testing.B, conn *pgxpool.Conn) (at int64) {
	b.Helper()
	if err := conn.QueryRow(b.Context(), `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`).Scan(&at); err != nil {
		b.Fatal(err)
	}
	return at
}
