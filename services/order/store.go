package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
)

const insertSQL = `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::bigint[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[])`

// queueInsert adds new orders to a batch of statements of one transaction; no orders add no statement.
func queueInsert(b *pgx.Batch, orders []*Order) {
	n := len(orders)
	if n == 0 {
		return
	}
	ids, users, items := make([]uuid.UUID, n), make([]string, n), make([][]Item, n)
	amounts, currencies, statuses := make([]int64, n), make([]string, n), make([]string, n)
	histories, createdAt := make([][]Entry, n), make([]time.Time, n)
	for i, o := range orders {
		ids[i], users[i], items[i] = o.ID, o.UserID, o.Items
		amounts[i], currencies[i], statuses[i] = o.Amount, o.Currency, string(o.Status)
		histories[i], createdAt[i] = o.History, o.CreatedAt
	}
	b.Queue(insertSQL, ids, users, jsons(items), amounts, currencies, statuses, jsons(histories), createdAt)
}

// jsons encodes each value for a jsonb[] parameter.
func jsons[T any](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		p, err := json.Marshal(v)
		if err != nil {
			panic(err) // lists of plain structs
		}
		out[i] = string(p)
	}
	return out
}

const columns = `id, user_id, items, amount, currency, status, reason, reason_code, reason_parameters, history, created_at, settled_at`

const getSQL = `SELECT ` + columns + ` FROM orders WHERE id = $1`

// get returns an order; ok is false when there is none of that id.
func get(ctx context.Context, db *pgxpool.Pool, id uuid.UUID) (o Order, ok bool, err error) {
	rows, _ := db.Query(ctx, getSQL, id) // the error surfaces in the collector
	o, err = pgx.CollectExactlyOneRow(rows, scanOrder)
	if errors.Is(err, pgx.ErrNoRows) {
		return Order{}, false, nil
	}
	if err != nil {
		return Order{}, false, fmt.Errorf("get order %s: %w", id, err)
	}
	return o, true, nil
}

func scanOrder(row pgx.CollectableRow) (o Order, err error) {
	err = row.Scan(orderFields(&o)...)
	o.complete()
	return o, err
}

// complete adds what follows from what is stored.
func (o *Order) complete() {
	o.codeHistory()
	o.Compensations = o.compensations()
}

// orderFields are where the columns go.
func orderFields(o *Order) []any {
	return []any{
		&o.ID, &o.UserID, &o.Items, &o.Amount, &o.Currency, &o.Status, &o.Reason, &o.ReasonCode, &o.ReasonParameters, &o.History, &o.CreatedAt, &o.SettledAt,
	}
}

// filter selects a page of orders, newest first. Empty fields select all.
type filter struct {
	user   string
	status Status
	before uuid.UUID
	limit  int
	// scan bounds how many rows are looked at. Status is in no index, so that settling an order stays cheap; a rare one
	// must not cost a walk through the table.
	scan int
}

// A page ends after limit orders, or after the last of scan rows, which is returned for its id even if its status is
// another.
const (
	listHead = `SELECT ` + columns + `, n = $4 FROM (
    SELECT *, row_number() OVER (ORDER BY id DESC) AS n FROM orders WHERE id < $1`
	listTail = ` ORDER BY id DESC LIMIT $4
) AS o WHERE $2 = '' OR status = $2 OR n = $4 ORDER BY id DESC LIMIT $3`
	listSQL       = listHead + listTail
	listOfUserSQL = listHead + ` AND user_id = $5` + listTail
)

// list returns a page and the id that the next page continues from, which is zero after the last one. A page can be
// short, even empty, and not be the last.
func list(ctx context.Context, db *pgxpool.Pool, f filter) (page []Order, next uuid.UUID, err error) {
	query, args := listSQL, []any{f.before, string(f.status), f.limit, f.scan}
	if f.user != "" {
		query, args = listOfUserSQL, append(args, f.user)
	}
	edge := false
	rows, _ := db.Query(ctx, query, args...) // the error surfaces in the collector
	page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o Order, err error) {
		err = row.Scan(append(orderFields(&o), &edge)...)
		o.complete()
		return o, err
	})
	if err != nil {
		return nil, uuid.Nil, fmt.Errorf("list orders: %w", err)
	}
	if len(page) == f.limit || edge {
		next = page[len(page)-1].ID
	}
	if edge && f.status != "" && page[len(page)-1].Status != f.status {
		page = page[:len(page)-1]
	}
	return page, next, nil
}

// lockedOrder is what settling an order needs of its row, which the transaction holds locked.
type lockedOrder struct {
	id        uuid.UUID
	createdAt time.Time
	was       Status // as it is stored
	Progress
	changed bool
}

// Rows are locked in the order of their ids, so that two members who hold events of the same orders wait for each other
// instead of deadlocking.
const lockSQL = `SELECT id, created_at, status, reason, reason_code, reason_parameters, history, settled_at
FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE`

// lock returns the orders that exist, locked until the end of tx.
func lock(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) (map[uuid.UUID]*lockedOrder, error) {
	rows, _ := tx.Query(ctx, lockSQL, ids) // the error surfaces in the collector
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*lockedOrder, error) {
		o := &lockedOrder{}
		err := row.Scan(&o.id, &o.createdAt, &o.Status, &o.Reason, &o.ReasonCode, &o.ReasonParameters, &o.History, &o.SettledAt)
		o.was = o.Status
		o.codeHistory()
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("lock %d orders: %w", len(ids), err)
	}
	orders := make(map[uuid.UUID]*lockedOrder, len(found))
	for _, o := range found {
		orders[o.id] = o
	}
	return orders, nil
}

const (
	saveSQL = `UPDATE orders AS o
SET status = n.status, reason = n.reason, reason_code = n.reason_code, reason_parameters = n.reason_parameters, history = n.history, settled_at = n.settled_at
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::jsonb[], $7::timestamptz[])
    AS n (id, status, reason, reason_code, reason_parameters, history, settled_at)
WHERE o.id = n.id`

	beginCancellingSQL = `INSERT INTO cancelling (order_id) SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING`
	endCancellingSQL   = `DELETE FROM cancelling WHERE order_id = ANY($1)`
)

// save writes the progress of the orders that have made any, on the way to the commit.
func save(ctx context.Context, tx pgx.Tx, orders iter.Seq[*lockedOrder]) error {
	var (
		ids, begin, end   []uuid.UUID
		statuses, reasons []string
		codes             []string
		parameters        []event.Parameters
		histories         [][]Entry
		settledAt         []*time.Time
	)
	for o := range orders {
		if !o.changed {
			continue
		}
		ids, statuses, reasons = append(ids, o.id), append(statuses, string(o.Status)), append(reasons, o.Reason)
		codes, parameters = append(codes, string(o.ReasonCode)), append(parameters, o.ReasonParameters)
		histories, settledAt = append(histories, o.History), append(settledAt, o.SettledAt)
		switch {
		case o.was == o.Status:
		case o.Status == Cancelling:
			begin = append(begin, o.id)
		case o.was == Cancelling:
			end = append(end, o.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var b pgx.Batch
	b.Queue(saveSQL, ids, statuses, reasons, codes, jsons(parameters), jsons(histories), settledAt)
	if len(begin) > 0 {
		b.Queue(beginCancellingSQL, begin)
	}
	if len(end) > 0 {
		b.Queue(endCancellingSQL, end)
	}
	return pg.Defer(ctx, tx, &b)
}

const lockWholeSQL = `SELECT ` + columns + ` FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE`

// lockWhole is [lock] of all that is known of the orders, by id.
func lockWhole(ctx context.Context, tx pgx.Tx, ids []uuid.UUID) ([]*Order, error) {
	rows, _ := tx.Query(ctx, lockWholeSQL, ids) // the error surfaces in the collector
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Order, error) {
		o, err := scanOrder(row)
		return &o, err
	})
}

// Of the orders that are waited for, only those are returned that have changed since.
const progressSinceSQL = `SELECT o.id, o.status, o.reason, o.reason_code, o.reason_parameters, o.history, o.settled_at
FROM unnest($1::uuid[], $2::int[]) AS w (id, lines) JOIN orders AS o ON o.id = w.id
WHERE jsonb_array_length(o.history) > w.lines`

// progressSince calls found with the progress of those of the orders whose history is longer than that many lines.
func progressSince(ctx context.Context, db *pgxpool.Pool, ids []uuid.UUID, lines []int, found func(uuid.UUID, Progress)) error {
	var id uuid.UUID
	var p Progress
	rows, _ := db.Query(ctx, progressSinceSQL, ids, lines) // the error surfaces in the reader
	_, err := pgx.ForEachRow(rows, []any{&id, &p.Status, &p.Reason, &p.ReasonCode, &p.ReasonParameters, &p.History, &p.SettledAt}, func() error {
		p.codeHistory()
		found(id, p)
		p = Progress{} // found may keep what it got
		return nil
	})
	if err != nil {
		return fmt.Errorf("look at %d orders that are waited for: %w", len(ids), err)
	}
	return nil
}

const cancellingSQL = `SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0)::float8 FROM cancelling`

// readCancelling returns how many orders are CANCELLING, and how long the oldest has been.
func readCancelling(ctx context.Context, db *pgxpool.Pool) (n int, oldest time.Duration, err error) {
	var age float64
	if err := db.QueryRow(ctx, cancellingSQL).Scan(&n, &age); err != nil {
		return 0, 0, fmt.Errorf("count the orders that are CANCELLING: %w", err)
	}
	return n, time.Duration(age * float64(time.Second)), nil
}

// source is what order holds of orders: those that are CONFIRMED. An order became what it is with the last line of its
// history.
var source = facts.Source{
	Set: "confirmed", Table: "orders", ID: "id", Member: "status = 'CONFIRMED'", Open: "status IN ('PENDING', 'CANCELLING')", Amount: "amount",
	Currency: "currency", User: "user_id", Items: "items",
	Facts: `SELECT id, status = 'CONFIRMED', status, amount, currency, coalesce((history -> -1 ->> 'at')::timestamptz, created_at), reason, user_id, ` +
		facts.ItemsSQL("items") + ` FROM orders`,
}
