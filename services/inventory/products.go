package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// These are the statements behind the API. Each is one row and a transaction of its own, with the event that tells of it, so
// it can stand in no one's way for longer than a moment.
const (
	productColumns = `id, name, price, currency, stock, available, reserved, version, created_at, updated_at`

	putProductSQL = `INSERT INTO products AS p (id, name, price, currency, stock, available, reserved)
VALUES ($1, $2, $3, $4, $5, $5, 0)
ON CONFLICT (id) DO UPDATE SET name = $2, price = $3, currency = $4, stock = $5, available = $5 - p.reserved,
    version = p.version + 1, updated_at = now()
WHERE p.reserved <= $5
RETURNING ` + productColumns + `, old.id IS NULL AS created`

	restockProductSQL = `UPDATE products SET stock = stock + $2, available = available + $2, version = version + 1, updated_at = now()
WHERE id = $1 AND stock + $2 <= $3 RETURNING ` + productColumns

	findProductSQL = `SELECT ` + productColumns + ` FROM products WHERE id = $1`

	listProductsSQL = `SELECT ` + productColumns + ` FROM products WHERE id > $1 ORDER BY id LIMIT $2`

	findReservationSQL = `SELECT order_id, status, items, reason, reason_code, reason_parameters, created_at, released_at FROM reservations WHERE order_id = $1`
)

// putProduct creates the product or changes it. It changes nothing where the product it returns holds more reserved
// units than the draft's stock.
func putProduct(ctx context.Context, db *pgxpool.Pool, id string, d Draft) (p Product, created bool, err error) {
	for { // again when a release has come between the two statements
		var put struct {
			Product
			Created bool
		}
		var ok bool
		err := pg.InTx(ctx, db, func(tx pgx.Tx) (err error) {
			put, ok, err = one[struct {
				Product
				Created bool
			}](ctx, tx, putProductSQL, id, d.Name, d.Price, d.Currency, d.Stock)
			if err != nil || !ok {
				return err
			}
			return tell(ctx, tx, put.Product)
		})
		if err != nil {
			return Product{}, false, fmt.Errorf("put product %s: %w", id, err)
		}
		if ok {
			return put.Product, put.Created, nil
		}
		if p, _, err := findProduct(ctx, db, id); err != nil || p.Reserved > d.Stock {
			return p, false, err
		}
	}
}

// tell publishes the product as it is now. Its row is locked, so versions leave in order.
func tell(ctx context.Context, tx pgx.Tx, p Product) error {
	return saga.Publish(ctx, tx, "inventory", saga.New(ctx, event.ProductUpdated, p.ID, p.updated()))
}

// restockProduct adds units to the product. It changes nothing, and returns false with what there is, where there is no
// such product or no room for so many units.
func restockProduct(ctx context.Context, db *pgxpool.Pool, id string, units int64) (Product, bool, error) {
	for { // again when the product was changed between the two statements
		var p Product
		var ok bool
		err := pg.InTx(ctx, db, func(tx pgx.Tx) (err error) {
			p, ok, err = one[Product](ctx, tx, restockProductSQL, id, units, int64(maxUnits))
			if err != nil || !ok {
				return err
			}
			return tell(ctx, tx, p)
		})
		if err != nil {
			return Product{}, false, fmt.Errorf("restock product %s: %w", id, err)
		}
		if ok {
			return p, true, nil
		}
		p, ok, err = findProduct(ctx, db, id)
		if err != nil || !ok || p.Stock > maxUnits-units {
			return p, false, err
		}
	}
}

func findProduct(ctx context.Context, db *pgxpool.Pool, id string) (Product, bool, error) {
	p, ok, err := one[Product](ctx, db, findProductSQL, id)
	if err != nil {
		err = fmt.Errorf("read product %s: %w", id, err)
	}
	return p, ok, err
}

// listProducts returns up to limit products whose ids come after one.
func listProducts(ctx context.Context, db *pgxpool.Pool, after string, limit int) ([]Product, error) {
	rows, _ := db.Query(ctx, listProductsSQL, after, limit) // the error surfaces in the collector
	products, err := pgx.CollectRows(rows, pgx.RowToStructByName[Product])
	if err != nil {
		return nil, fmt.Errorf("list products: %w", err)
	}
	return products, nil
}

func findReservation(ctx context.Context, db *pgxpool.Pool, order uuid.UUID) (Record, bool, error) {
	r, ok, err := one[Record](ctx, db, findReservationSQL, order)
	if err != nil {
		err = fmt.Errorf("read the reservation of order %s: %w", order, err)
	}
	return r, ok, err
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// one reads a query's one row, if there is one.
func one[T any](ctx context.Context, db querier, sql string, args ...any) (T, bool, error) {
	rows, _ := db.Query(ctx, sql, args...) // the error surfaces in the collector
	v, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[T])
	if errors.Is(err, pgx.ErrNoRows) {
		return v, false, nil
	}
	return v, err == nil, err
}
