package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
)

// Locks are taken in one order everywhere, so that no two transactions wait for each other: reservations by order id,
// then products by id, then the new reservations by order id. What a transaction inserts last it waits for last.
const (
	lockReservationsSQL = `SELECT order_id, status, items, reason, reason_code, reason_parameters FROM reservations
WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE`

	lockProductsSQL = `SELECT id, available, price, currency FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE`
)

// lockForReserve locks and reads, in one round-trip, what is known of the orders and of the products they want.
func lockForReserve(ctx context.Context, tx pgx.Tx, orders []uuid.UUID, products []string) (*unitOfWork, error) {
	b := newUnitOfWork()
	var batch pgx.Batch
	batch.Queue(lockReservationsSQL, orders).Query(b.readReservations)
	batch.Queue(lockProductsSQL, distinct(products)).Query(b.readProducts)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("lock %d orders and their products: %w", len(orders), err)
	}
	return b, nil
}

// lockForRelease locks and reads what is known of the orders, and then the products that they hold.
func lockForRelease(ctx context.Context, tx pgx.Tx, orders []uuid.UUID) (*unitOfWork, error) {
	b := newUnitOfWork()
	rows, _ := tx.Query(ctx, lockReservationsSQL, orders) // the error surfaces in the reader
	if err := b.readReservations(rows); err != nil {
		return nil, fmt.Errorf("lock %d orders: %w", len(orders), err)
	}
	var held []string
	for _, r := range b.reservations {
		if r.Status == Reserved {
			for _, l := range r.Items {
				held = append(held, l.ProductID)
			}
		}
	}
	if len(held) == 0 {
		return b, nil
	}
	rows, _ = tx.Query(ctx, lockProductsSQL, distinct(held))
	if err := b.readProducts(rows); err != nil {
		return nil, fmt.Errorf("lock the products of %d orders: %w", len(orders), err)
	}
	return b, nil
}

func (b *unitOfWork) readReservations(rows pgx.Rows) error {
	rs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Reservation])
	for _, r := range rs {
		b.reservations[r.OrderID] = r
	}
	return err
}

func (b *unitOfWork) readProducts(rows pgx.Rows) error {
	var id string
	var available int64
	var price Money
	_, err := pgx.ForEachRow(rows, []any{&id, &available, &price.Amount, &price.Currency}, func() error {
		b.available[id], b.prices[id] = available, price
		return nil
	})
	return err
}

// A reservation that another transaction added since it was looked for makes the insert fail: a release and a reserve
// of one order met for the first time. The transaction is then run again and finds the other's outcome.
const (
	moveUnitsSQL = `UPDATE products p SET available = available - units, reserved = reserved + units, updated_at = now()
FROM unnest($1::text[], $2::bigint[]) AS moved (id, units) WHERE p.id = moved.id`

	releaseReservationsSQL = `UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = ANY($1)`

	retakeReservationsSQL = `UPDATE reservations r SET status = 'RESERVED', items = again.items, reason = '', reason_code = '', reason_parameters = 'null',
    created_at = now(), released_at = NULL
FROM unnest($1::uuid[], $2::jsonb[]) AS again (order_id, items) WHERE r.order_id = again.order_id`

	addReservationsSQL = `INSERT INTO reservations (order_id, status, items, reason, reason_code, reason_parameters, released_at)
SELECT order_id, status, items, reason, reason_code, reason_parameters, CASE status WHEN 'RELEASED' THEN now() END
FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::text[], $5::text[], $6::jsonb[]) AS added (order_id, status, items, reason, reason_code, reason_parameters)
ORDER BY order_id`
)

// save writes what a batch changed, on the way to the commit. The rows it updates are locked.
func save(ctx context.Context, tx pgx.Tx, b *unitOfWork) error {
	var batch pgx.Batch
	if products, units := b.changes(); len(products) > 0 {
		batch.Queue(moveUnitsSQL, products, units)
	}
	if len(b.released) > 0 {
		batch.Queue(releaseReservationsSQL, b.released)
	}
	if len(b.retaken) > 0 {
		batch.Queue(retakeReservationsSQL, b.retaken, b.items(b.retaken))
	}
	if len(b.added) > 0 {
		n := len(b.added)
		statuses, reasons, codes, parameters := make([]string, n), make([]string, n), make([]string, n), make([]event.Parameters, n)
		for i, id := range b.added {
			r := b.reservations[id]
			statuses[i], reasons[i], codes[i], parameters[i] = string(r.Status), r.Reason, string(r.ReasonCode), r.ReasonParameters
		}
		batch.Queue(addReservationsSQL, b.added, statuses, b.items(b.added), reasons, codes, jsons(parameters))
	}
	if batch.Len() == 0 {
		return nil
	}
	return pg.Defer(ctx, tx, &batch)
}

// items encodes the items of the orders' reservations for a jsonb[] parameter.
func (b *unitOfWork) items(orders []uuid.UUID) []string {
	items := make([][]Line, len(orders))
	for i, id := range orders {
		items[i] = b.reservations[id].Items
	}
	return jsons(items)
}

// jsons encodes each value for a jsonb[] parameter.
func jsons[T any](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // lists of plain structs, and maps of text
		}
		out[i] = string(text)
	}
	return out
}

// changes lists the products whose units moved, and how many.
func (b *unitOfWork) changes() (products []string, units []int64) {
	for id, n := range b.moved {
		if n != 0 {
			products, units = append(products, id), append(units, n)
		}
	}
	return products, units
}

func distinct(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}
