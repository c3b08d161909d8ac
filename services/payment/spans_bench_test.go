package payment

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/testkit/pgtest"
)

// BenchmarkAudit audits the ledger of so many orders that 20,000 users paid: at first, when nothing and when 10,000
// orders are new, and in full.
func BenchmarkAudit(b *testing.B) {
	for _, orders := range []int{500_000, 2_000_000} {
		b.Run(fmt.Sprint(orders), func(b *testing.B) {
			db := alone(b, pgtest.New(b, "payment audited", schema()))
			l := ledger{b, db}
			l.exec(`INSERT INTO accounts (id, currency, balance, overdraft)
				SELECT 'u-' || i, 'EUR', 1000000, false FROM generate_series(0, 19999) AS i
				UNION ALL VALUES ('merchant.EUR', 'EUR', 0, false), ('external.EUR', 'EUR', -20000 * 1000000::bigint, true)`)
			l.exec(`WITH made AS MATERIALIZED (SELECT 'u-' || i AS account, uuidv7() AS id FROM generate_series(0, 19999) AS i)
				INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
				SELECT account, id, 'opening', 1000000, 'external.EUR' FROM made UNION ALL SELECT 'external.EUR', id, 'opening', -1000000, account FROM made`)
			for range orders / 250_000 {
				l.add(250_000, time.Hour)
			}
			l.exec(`VACUUM ANALYZE`)
			a := newAuditor(db, 24*time.Hour)
			a.grace = 0
			look := func(b *testing.B, full bool) {
				if found, err := a.audit(b.Context(), full); err != nil || len(found) > 0 {
					b.Fatalf("found %v, %v", found, err)
				}
			}
			// measure has something made ready before each audit, which is not measured, and counts the rows that
			// audits read.
			measure := func(name string, full bool, ready func()) {
				b.Run(name, func(b *testing.B) {
					var rows int64
					for b.Loop() {
						b.StopTimer()
						ready()
						before := l.rowsRead()
						b.StartTimer()
						look(b, full)
						b.StopTimer()
						rows += l.rowsRead() - before
						b.StartTimer()
					}
					b.ReportMetric(float64(rows)/float64(b.N), "rows/op")
				})
			}
			measure("first", false, func() { l.exec(`TRUNCATE audit_spans, audit_horizon, audit_accounts, audit_transfers`) })
			for closed := false; !closed; {
				look(b, false)
				err := db.QueryRow(b.Context(), `SELECT summed = last_value / $1 FROM audit_horizon, entries_n_seq`, a.width).Scan(&closed)
				if err != nil {
					b.Fatal(err)
				}
			}
			for suspect := true; suspect; { // each span is held to the rules once after it was closed
				look(b, false)
				if err := db.QueryRow(b.Context(), `SELECT coalesce(bool_or(suspect), false) FROM audit_spans`).Scan(&suspect); err != nil {
					b.Fatal(err)
				}
			}
			measure("nothing new", false, func() {})
			measure("10000 new", false, func() { l.add(10_000, 0) })
			measure("full", true, func() {})
		})
	}
}

// alone is the database with one connection.
func alone(b *testing.B, db *pgxpool.Pool) *pgxpool.Pool {
	b.Helper()
	cfg := db.Config()
	cfg.MaxConns, cfg.MinConns = 1, 1
	one, err := pgxpool.NewWithConfig(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(one.Close)
	return one
}

// ledger is a database that a benchmark fills.
type ledger struct {
	testing.TB
	db *pgxpool.Pool
}

func (l ledger) exec(sql string, args ...any) {
	l.Helper()
	if _, err := l.db.Exec(l.Context(), sql, args...); err != nil {
		l.Fatal(err)
	}
}

// rowsRead is how many rows statements have read. The database has one connection, which tells of all that it has read.
func (l ledger) rowsRead() (n int64) {
	l.Helper()
	l.exec(`SELECT pg_stat_force_next_flush()`)
	if err := l.db.QueryRow(l.Context(), `SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables`).Scan(&n); err != nil {
		l.Fatal(err)
	}
	return n
}

// add has so many orders paid, which were placed so long ago.
func (l ledger) add(orders int, ago time.Duration) {
	l.Helper()
	var last int64
	if err := l.db.QueryRow(l.Context(), `SELECT last_value FROM entries_n_seq`).Scan(&last); err != nil {
		l.Fatal(err)
	}
	l.exec(`WITH made AS MATERIALIZED (SELECT 'u-' || i % 20000 AS account, uuidv7(-$2::interval) AS order_id, uuidv7() AS id FROM generate_series(1, $1::int) AS i),
		paid AS (
			INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason, created_at) SELECT order_id, id, account, 100, 'EUR', 'COMPLETED', '', now() - $2::interval FROM made
		)
		INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
		SELECT e.account, id, 'charge', e.amount, e.other, order_id
		FROM made, LATERAL (VALUES (made.account, -100, 'merchant.EUR'), ('merchant.EUR', 100, made.account)) AS e (account, amount, other)`, orders, ago)
	l.exec(`UPDATE accounts a SET balance = balance + e.amount FROM (SELECT account_id, sum(amount) AS amount FROM entries WHERE n > $1 GROUP BY 1) AS e WHERE e.account_id = a.id`, last)
}
