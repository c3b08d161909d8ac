package synchronous

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
)

type orderPath struct {
	ID uuid.UUID `path:"orderId"`
}

type empty struct{}

func registerInventory(api huma.API, db *pgxpool.Pool) {
	huma.Register(api, huma.Operation{OperationID: "put-product", Method: http.MethodPut, Path: "/products/{id}", DefaultStatus: http.StatusCreated},
		func(ctx context.Context, in *struct {
			ID   string `path:"id"`
			Body struct {
				Name     string `json:"name"`
				Price    int64  `json:"price"`
				Currency string `json:"currency"`
				Stock    int64  `json:"stock"`
			}
		},
		) (*empty, error) {
			if _, err := db.Exec(ctx, addProductSQL, in.ID, in.Body.Name, in.Body.Price, in.Body.Currency, in.Body.Stock); err != nil {
				return nil, web.Fault(ctx, err)
			}
			return &empty{}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "reserve", Method: http.MethodPut, Path: "/reservations/{orderId}", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *struct {
			ID   uuid.UUID `path:"orderId"`
			Body reservation
		},
		) (*empty, error) {
			reason, err := reserve(ctx, db, in.ID, in.Body.Items)
			switch {
			case err != nil:
				return nil, web.Fault(ctx, err)
			case reason != "":
				return nil, web.Problem(http.StatusConflict, "not-reserved", "Not reserved", reason)
			}
			return &empty{}, nil
		})
	huma.Register(api, huma.Operation{OperationID: "release", Method: http.MethodDelete, Path: "/reservations/{orderId}", DefaultStatus: http.StatusNoContent},
		func(ctx context.Context, in *orderPath) (*empty, error) {
			if err := release(ctx, db, in.ID); err != nil {
				return nil, web.Fault(ctx, err)
			}
			return &empty{}, nil
		})
}

// A reservation's row is locked before products are, and those in the order of their ids, so that no two requests wait
// for each other.
const (
	addProductSQL = `INSERT INTO products (id, name, price, currency, stock, available, reserved) VALUES ($1, $2, $3, $4, $5, $5, 0)`

	addReservationSQL = `INSERT INTO reservations (order_id, status, items, reason) VALUES ($1, 'RESERVED', $2, '') ON CONFLICT DO NOTHING`

	readReservationSQL = `SELECT status, reason FROM reservations WHERE order_id = $1`

	refuseReservationSQL = `UPDATE reservations SET status = 'REFUSED', items = '[]', reason = $2 WHERE order_id = $1`

	releaseReservationSQL = `INSERT INTO reservations AS r (order_id, status, items, reason) VALUES ($1, 'RELEASED', '[]', 'released before it was reserved')
ON CONFLICT (order_id) DO UPDATE SET status = 'RELEASED' WHERE r.status = 'RESERVED' RETURNING items`

	lockProductsSQL = `SELECT id, available FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	moveUnitsSQL = `UPDATE products p SET available = available - units, reserved = reserved + units
FROM unnest($1::text[], $2::bigint[]) AS moved (id, units) WHERE p.id = moved.id`
)

// reserve takes every item of the order or none, and returns the reason of none. An order that was here before gets its
// outcome again.
func reserve(ctx context.Context, db *pgxpool.Pool, order uuid.UUID, items []item) (reason string, err error) {
	ids, units := columns(items, 1)
	text, err := json.Marshal(items)
	if err != nil {
		return "", err
	}
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		added := false
		available := map[string]int64{}
		var read, write pgx.Batch
		read.Queue(addReservationSQL, order, string(text)).Exec(func(tag pgconn.CommandTag) error { added = tag.RowsAffected() == 1; return nil })
		read.Queue(lockProductsSQL, ids).Query(func(rows pgx.Rows) error {
			var id string
			var n int64
			_, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { available[id] = n; return nil })
			return err
		})
		if err := tx.SendBatch(ctx, &read).Close(); err != nil {
			return err
		}
		if !added {
			var status string
			if err := tx.QueryRow(ctx, readReservationSQL, order).Scan(&status, &reason); err != nil {
				return err
			}
			if status == "RELEASED" {
				reason = cmp.Or(reason, "released before")
			}
			return nil
		}
		for i, id := range ids {
			if n, known := available[id]; !known || n < units[i] {
				reason = fmt.Sprintf("out of stock: %s: %d wanted, %d available", id, units[i], n)
				write.Queue(refuseReservationSQL, order, reason)
				return pg.Defer(ctx, tx, &write)
			}
		}
		write.Queue(moveUnitsSQL, ids, units)
		return pg.Defer(ctx, tx, &write)
	})
	if err != nil {
		return "", fmt.Errorf("reserve for order %s: %w", order, err)
	}
	return reason, nil
}

// release gives back what the order holds, once. One that holds nothing yet never will.
func release(ctx context.Context, db *pgxpool.Pool, order uuid.UUID) error {
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var items []item
		if err := tx.QueryRow(ctx, releaseReservationSQL, order).Scan(&items); errors.Is(err, pgx.ErrNoRows) || err == nil && len(items) == 0 {
			return nil
		} else if err != nil {
			return err
		}
		ids, units := columns(items, -1)
		if _, err := tx.Exec(ctx, lockProductsSQL, ids); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, moveUnitsSQL, ids, units)
		return err
	})
	if err != nil {
		return fmt.Errorf("release order %s: %w", order, err)
	}
	return nil
}

// columns adds up the units of each product, in the order of their ids.
func columns(items []item, sign int64) (ids []string, units []int64) {
	items = slices.SortedFunc(slices.Values(items), func(a, b item) int { return cmp.Compare(a.ProductID, b.ProductID) })
	for _, it := range items {
		if n := len(ids); n == 0 || ids[n-1] != it.ProductID {
			ids, units = append(ids, it.ProductID), append(units, 0)
		}
		units[len(units)-1] += sign * it.Quantity
	}
	return ids, units
}
