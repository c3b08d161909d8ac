package verify

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/bench/history"
	"github.com/converge-dev/converge/lab/bench/sqlfloor"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// settled gives a test the services' databases after n orders went through, and what the driver would know of them. The
// floor is what takes them through, so this is its test too.
func settled(t *testing.T, n int) (map[string]*pgxpool.Pool, Promised) {
	t.Helper()
	dbs := map[string]*pgxpool.Pool{}
	for _, service := range workload.Services {
		dbs[service] = pgtest.New(t, service, sagatest.Migrate(pg.Migration{Name: service, FS: migrations.For(service)}))
	}
	if err := errors.Join(workload.InsertStock(t.Context(), dbs["inventory"]), workload.Fund(t.Context(), dbs["payment"])); err != nil {
		t.Fatal(err)
	}
	want := Promised{Acked: map[uuid.UUID]struct{}{}, Stock: workload.Stock}
	made := workload.NewOrders(1, 1)
	done, err := sqlfloor.Run(t.Context(), dbs, func() []sqlfloor.Order {
		batch := make([]sqlfloor.Order, min(7, n-len(want.Acked)))
		for i := range batch {
			batch[i] = sqlfloor.Encode(made.Next())
			want.Acked[batch[i].ID] = struct{}{}
		}
		return batch
	})
	if err != nil || done != n {
		t.Fatalf("%d of %d orders went through: %v", done, n, err)
	}
	return dbs, want
}

func TestWhatTheFloorDoesIsRight(t *testing.T) {
	t.Parallel()
	dbs, want := settled(t, 40)
	wrong, err := check(t.Context(), dbs, want)
	if err != nil || len(wrong) > 0 {
		t.Fatalf("violations %v, %v", wrong, err)
	}
	var units, reserved int64
	err = dbs["inventory"].QueryRow(t.Context(), `SELECT sum(reserved), (SELECT count(*) FROM reservations) FROM products`).Scan(&units, &reserved)
	if err != nil || reserved != 40 || units < 80 {
		t.Errorf("%d reservations of %d units, %v; want 40 of 80 at least", reserved, units, err)
	}
}

// Each row breaks one thing in one database, as a lost, a doubled or a half-done effect would.
func TestVerifyNamesWhatIsBroken(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, service, sql, want string }{
		{"lost order", "order", `DELETE FROM orders WHERE id = (SELECT min(id::text)::uuid FROM orders)`, "1 acknowledged orders are not stored"},
		{"order never settles", "order", `UPDATE orders SET status = 'PENDING', settled_at = NULL WHERE id = (SELECT min(id::text)::uuid FROM orders)`, "1 orders are PENDING"},
		{"lost payment", "payment", `DELETE FROM payments WHERE order_id = (SELECT min(order_id::text)::uuid FROM payments)`, "1 CONFIRMED orders are not paid"},
		{"failed payment", "payment", `UPDATE payments SET status = 'FAILED', reason = 'x' WHERE order_id = (SELECT min(order_id::text)::uuid FROM payments)`, "1 CONFIRMED orders are not paid"},
		{"payment for a cancelled order", "order", `UPDATE orders SET status = 'CANCELLED' WHERE id = (SELECT min(id::text)::uuid FROM orders)`, "1 COMPLETED payments are of orders that are not CONFIRMED"},
		{"lost reservation", "inventory", `DELETE FROM reservations WHERE order_id = (SELECT min(order_id::text)::uuid FROM reservations)`, "1 CONFIRMED orders have nothing reserved"},
		{"reservation of nobody", "inventory", `INSERT INTO reservations (order_id, status, items, reason) VALUES (gen_random_uuid(), 'RESERVED', '[{"productId":"product-1","quantity":1}]', '')`, "1 RESERVED reservations are of orders that are not CONFIRMED"},
		{"reserved twice", "inventory", `UPDATE products SET available = available - 1, reserved = reserved + 1 WHERE id = 'product-1'`, "product-1: 1000000000 units put in"},
		{"units appear", "inventory", `UPDATE products SET stock = stock + 1, available = available + 1 WHERE id = 'product-2'`, "product-2: 1000000000 units put in"},
		{"money appears", "payment", `UPDATE entries SET amount = amount + 1 WHERE n = (SELECT max(n) FROM entries)`, "all entries sum to 1"},
		{"balance without entries", "payment", `UPDATE accounts SET balance = balance + 1 WHERE id = 'user-0'`, "account user-0 holds"},
		{"pending money is lost", "payment", `DELETE FROM pending WHERE n = (SELECT max(n) FROM pending)`, "account merchant.EUR holds"},
		{"payment without money", "payment", `UPDATE payments SET amount = amount + 1 WHERE order_id = (SELECT min(order_id::text)::uuid FROM payments)`, "merchants hold"},
		{"event never published", "payment", `INSERT INTO outbox (topic, key, value, headers) VALUES ('t', '', '', '')`, "the outbox of payment holds 1 events"},
		{"order that nobody placed", "order", `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at, settled_at)
			SELECT gen_random_uuid(), user_id, items, amount, currency, status, history, created_at, settled_at FROM orders LIMIT 1`, "1 stored orders were never acknowledged"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dbs, want := settled(t, 20)
			if tag, err := dbs[tc.service].Exec(t.Context(), tc.sql); err != nil || tag.RowsAffected() != 1 {
				t.Fatalf("break it: %v, %v", tag, err)
			}
			wrong, err := check(t.Context(), dbs, want)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(wrong, "\n"), tc.want) {
				t.Errorf("violations %q; want %q among them", wrong, tc.want)
			}
		})
	}
}

// A request whose answer was lost may have stored an order, but no more than one.
func TestUnansweredRequestsMayBeStored(t *testing.T) {
	t.Parallel()
	dbs, want := settled(t, 10)
	for id := range want.Acked {
		if delete(want.Acked, id); len(want.Acked) == 8 {
			break
		}
	}
	want.Unknown = 2
	if wrong, err := check(t.Context(), dbs, want); err != nil || len(wrong) > 0 {
		t.Errorf("with two unanswered requests: %v, %v", wrong, err)
	}
	want.Unknown = 1
	if wrong, err := check(t.Context(), dbs, want); err != nil || len(wrong) != 1 {
		t.Errorf("with one unanswered request and two such orders: %v, %v", wrong, err)
	}
}

func TestHistoryIsRight(t *testing.T) {
	t.Parallel()
	dbs, want := settled(t, 10)
	ids, err := history.New(3000, 5).Store(t.Context(), dbs)
	if err != nil || len(ids) != 3000 {
		t.Fatalf("%d orders stored, %v", len(ids), err)
	}
	for _, id := range ids {
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Fatalf("%s is not a UUIDv7", id)
		}
		want.Acked[id] = struct{}{}
	}
	wrong, err := check(t.Context(), dbs, want)
	if err != nil || len(wrong) > 0 {
		t.Errorf("violations %v, %v", wrong, err)
	}
}
