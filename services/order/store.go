package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
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

// list returns a page and the id that the next page continues from, which is zero after the last one. A page can be short,
// even empty, and not be the last.
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
