// Package verify holds the services' databases against each other after a load, and against what its clients were told:
// nothing may be lost, doubled or stuck.
package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
)

// Promised is what the driver knows, to hold the databases against.
type Promised struct {
	Acked   map[uuid.UUID]struct{}
	Unknown int   // orders that may be stored though nobody was told
	Stock   int64 // units put in of each product
}

// Settled waits until nothing is under way any more and returns what is wrong then; nothing is right. What is still
// wrong after patience is reported.
func Settled(ctx context.Context, dbs map[string]*pgxpool.Pool, want Promised, patience time.Duration) ([]string, error) {
	deadline := time.Now().Add(patience)
	for {
		wrong, err := check(ctx, dbs, want)
		if err != nil || len(wrong) == 0 || time.Now().After(deadline) {
			return wrong, err
		}
		rig.Pause(ctx, 200*time.Millisecond)
	}
}

// check compares once. Each service's facts come from a statement of its own, so a difference may still be on its way.
func check(ctx context.Context, dbs map[string]*pgxpool.Pool, want Promised) ([]string, error) {
	var r violations
	for _, service := range workload.Services {
		var depth int
		if err := dbs[service].QueryRow(ctx, `SELECT count(*) FROM outbox`).Scan(&depth); err != nil {
			return nil, fmt.Errorf("verify the outbox of %s: %w", service, err)
		}
		r.that(depth == 0, "the outbox of %s holds %d events", service, depth)
	}
	orders, err := States(ctx, dbs["order"], `SELECT id, status FROM orders`)
	if err != nil {
		return nil, err
	}
	payments, err := States(ctx, dbs["payment"], `SELECT order_id, status FROM payments`)
	if err != nil {
		return nil, err
	}
	reservations, err := States(ctx, dbs["inventory"], `SELECT order_id, status FROM reservations`)
	if err != nil {
		return nil, err
	}

	confirmed, paid, reserved := with(orders, "CONFIRMED"), with(payments, "COMPLETED"), with(reservations, "RESERVED")
	r.none(with(orders, "PENDING"), "orders are PENDING")
	r.none(Minus(confirmed, paid), "CONFIRMED orders are not paid")
	r.none(Minus(confirmed, reserved), "CONFIRMED orders have nothing reserved")
	r.none(Minus(paid, confirmed), "COMPLETED payments are of orders that are not CONFIRMED")
	r.none(Minus(reserved, confirmed), "RESERVED reservations are of orders that are not CONFIRMED")
	r.none(Minus(want.Acked, orders), "acknowledged orders are not stored")
	unasked := Minus(orders, want.Acked)
	if len(unasked) > want.Unknown {
		r.none(unasked, fmt.Sprintf("stored orders were never acknowledged (%d requests had no answer)", want.Unknown))
	}
	err = errors.Join(checkStock(ctx, dbs["inventory"], want.Stock, &r), checkMoney(ctx, dbs["payment"], &r))
	return r.lines, err
}

// unitsSQL holds the units of each product against what its orders hold.
const unitsSQL = `SELECT p.id, p.stock, p.available, p.reserved, coalesce(held.units, 0)::bigint
FROM products p LEFT JOIN (
    SELECT item->>'productId' AS id, sum((item->>'quantity')::bigint) AS units
    FROM reservations, jsonb_array_elements(items) AS item WHERE status = 'RESERVED' GROUP BY 1
) AS held ON held.id = p.id
WHERE p.stock <> $1 OR p.available + p.reserved <> $1 OR p.available < 0 OR p.reserved <> coalesce(held.units, 0)
ORDER BY p.id`

func checkStock(ctx context.Context, db *pgxpool.Pool, putIn int64, r *violations) error {
	rows, _ := db.Query(ctx, unitsSQL, putIn) // the error surfaces in the collector
	var id string
	var stock, available, reserved, held int64
	n := 0
	_, err := pgx.ForEachRow(rows, []any{&id, &stock, &available, &reserved, &held}, func() error {
		if n++; n <= shown {
			r.that(false, "%s: %d units put in; stock %d, available %d, reserved %d, held by orders %d", id, putIn, stock, available, reserved, held)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify the stock: %w", err)
	}
	r.that(n <= shown, "%d products in all do not add up", n)
	return nil
}

// States reads the status of every order; sql selects ids and statuses. Two rows of one order are an error.
func States(ctx context.Context, db *pgxpool.Pool, sql string) (map[uuid.UUID]string, error) {
	rows, _ := db.Query(ctx, sql) // the error surfaces in the collector
	out := map[uuid.UUID]string{}
	var id uuid.UUID
	var status string
	var again error
	_, err := pgx.ForEachRow(rows, []any{&id, &status}, func() error {
		if _, ok := out[id]; ok {
			again = fmt.Errorf("%s: two rows of order %s", sql, id)
		}
		out[id] = status
		return nil
	})
	return out, errors.Join(err, again)
}

// with returns the ids of a status.
func with(all map[uuid.UUID]string, status string) map[uuid.UUID]struct{} {
	out := make(map[uuid.UUID]struct{}, len(all))
	for id, s := range all {
		if s == status {
			out[id] = struct{}{}
		}
	}
	return out
}

// Minus returns the ids of a that b lacks.
func Minus[A, B any](a map[uuid.UUID]A, b map[uuid.UUID]B) map[uuid.UUID]struct{} {
	out := map[uuid.UUID]struct{}{}
	for id := range a {
		if _, ok := b[id]; !ok {
			out[id] = struct{}{}
		}
	}
	return out
}
