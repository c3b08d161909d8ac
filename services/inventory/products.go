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
	"github.com/converge-dev/converge/pkg/web"
)

// These are the statements behind the API. Each is one row and a transaction of its own, with the event that tells of
// it, so it can stand in no one's way for longer than a moment.
const (
	productColumns = `id, name, description, price, currency, stock, available, reserved, version, created_at, updated_at`
)

// put judges a write and does it, with the event that tells of it. said tells whether the writer names a stock. It
// returns the product as it is then; one without an id where there is none.
func put(ctx context.Context, db *pgxpool.Pool, id string, d Draft, said bool, c web.Condition) (p Product, v putVerdict, err error) {
	for again := true; again; { // when another has created the product between the look and the insert
		again = false
		err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
			now, exists, err := one[Product](ctx, tx, lockProductSQL, id)
			if err != nil {
				return err
			}
			first, _, err := one[Movement](ctx, tx, firstMovementSQL, id)
			if err != nil {
				return err
			}
			if p, v = now, judge(now, exists, d, said, first.Units, c); v != create && v != change {
				return nil
			}
			ok := true
			if v == create {
				p, ok, err = one[Product](ctx, tx, createProductSQL, id, d.Name, d.Price, d.Currency, d.Stock, d.Description)
			} else {
				p, _, err = one[Product](ctx, tx, changeProductSQL, id, d.Name, d.Price, d.Currency, d.Description)
			}
			if again = err == nil && !ok; err != nil || !ok {
				return err
			}
			return emitUpdated(ctx, tx, p)
		})
		if err != nil {
			return Product{}, v, fmt.Errorf("put product %s: %w", id, err)
		}
	}
	return p, v, nil
}

// emitUpdated publishes the product as it is now. Its row is locked, so versions leave in order.
func emitUpdated(ctx context.Context, tx pgx.Tx, p Product) error {
	return saga.Publish(ctx, tx, "inventory", saga.New(ctx, event.ProductUpdated, p.ID, p.updated()))
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
