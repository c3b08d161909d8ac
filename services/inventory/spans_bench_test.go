package inventory

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// BenchmarkAudit audits the stock of so many orders, of which one in twenty was released, and as many movements, of
// 1,000 products: at first, when nothing and when 10,000 orders are new, and in full.
func BenchmarkAudit(b *testing.B) {
	for _, orders := range []int{500_000, 2_000_000} {
		b.Run(fmt.Sprint(orders), func(b *testing.B) {
			db := alone(b, pgtest.New(b, "inventory audited", sagatest.Migrate(pg.Migration{Name: "inventory", FS: migrations.For("inventory")})))
			s := stocked{b, db}
			s.exec(`INSERT INTO products (id, name, price, currency, stock, available, reserved) SELECT 'p-' || i, 'p', 100, 'EUR', 0, 0, 0 FROM generate_series(0, 999) AS i`)
			for range orders / 250_000 {
				s.add(250_000)
			}
			s.exec(`VACUUM ANALYZE`)
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
						before := s.rowsRead()
						b.StartTimer()
						look(b, full)
						b.StopTimer()
						rows += s.rowsRead() - before
						b.StartTimer()
					}
					b.ReportMetric(float64(rows)/float64(b.N), "rows/op")
				})
			}
			measure("first", false, func() { s.exec(`TRUNCATE audit_spans, audit_horizon, audit_held, audit_movements`) })
			for closed := false; !closed; {
				look(b, false)
				err := db.QueryRow(b.Context(), `SELECT summed = last_value / $1 FROM audit_horizon, reservations_n_seq`, a.width).Scan(&closed)
				if err != nil {
					b.Fatal(err)
				}
			}
			measure("nothing new", false, func() {})
			measure("10000 new", false, func() { s.add(10_000) })
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

// stocked is a database that a benchmark fills.
type stocked struct {
	testing.TB
	db *pgxpool.Pool
}

func (s stocked) exec(sql string, args ...any) {
	s.Helper()
	if _, err := s.db.Exec(s.Context(), sql, args...); err != nil {
		s.Fatal(err)
	}
}

// rowsRead is how many rows statements have read. The database has one connection, which tells of all that it has read.
func (s stocked) rowsRead() (n int64) {
	s.Helper()
	s.exec(`SELECT pg_stat_force_next_flush()`)
	if err := s.db.QueryRow(s.Context(), `SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables`).Scan(&n); err != nil {
		s.Fatal(err)
	}
	return n
}

// add has as many units come as orders take that come then, one in twenty of which is released.
func (s stocked) add(orders int) {
	s.Helper()
	var last int64
	if err := s.db.QueryRow(s.Context(), `SELECT coalesce(max(n), 0) FROM reservations`).Scan(&last); err != nil {
		s.Fatal(err)
	}
	s.exec(`INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
		SELECT p.id, p.movements + i, uuidv7(), 'receipt', 2, 2, p.stock + 2 * i, '' FROM products p, generate_series(1, $1::int / 1000) AS i`, orders)
	s.exec(`UPDATE products SET movements = movements + $1::int / 1000, stock = stock + 2 * ($1::int / 1000), available = available + 2 * ($1::int / 1000)`, orders)
	s.exec(`INSERT INTO reservations (order_id, status, items, reason, created_at)
		SELECT uuidv7(), 'RESERVED', jsonb_build_array(jsonb_build_object('productId', 'p-' || i % 1000, 'quantity', 1), jsonb_build_object('productId', 'p-' || i % 999, 'quantity', 1)), '', now()
		FROM generate_series(1, $1::int) AS i`, orders)
	s.exec(`UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE n > $1 AND n % 20 = 0`, last)
	s.exec(`UPDATE products p SET reserved = reserved + units, available = available - units FROM (
			SELECT i."productId" AS id, sum(i.quantity) AS units FROM reservations, jsonb_to_recordset(items) AS i ("productId" text, quantity bigint)
			WHERE n > $1 AND status = 'RESERVED' GROUP BY 1
		) AS h WHERE h.id = p.id`, last)
}
