// Package history writes a past into the databases: orders that went through the system before, so that what is
// measured runs on full tables.
package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/bench/sqlfloor"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// History is a past in which orders went through the system, one each millisecond, the last one an hour ago: rows as
// they would lie there, in every table that keeps them. The same one can be told again for each database.
type History struct {
	orders int
	seed   uint64
	Begin  time.Time // when its first order was placed
}

// New returns the past of a number of orders that ended an hour ago. Orders are the same for the same seed.
func New(orders int, seed uint64) History {
	return History{orders, seed, time.Now().UTC().Truncate(time.Millisecond).Add(-time.Hour - time.Duration(orders)*time.Millisecond)}
}

// each calls fn for every order, the oldest first.
func (h History) each(fn func(o sqlfloor.Order, at time.Time) error) error {
	made := workload.NewOrders(h.seed, 1<<40) // a stream of its own
	for i := range h.orders {
		o, at := sqlfloor.Encode(made.Next()), h.Begin.Add(time.Duration(i)*time.Millisecond)
		o.ID = idAt(at, made.Rand.Uint64())
		if err := fn(o, at); err != nil {
			return err
		}
	}
	return nil
}

// idAt is a UUIDv7 of a moment (RFC 9562, 5.7).
func idAt(t time.Time, random uint64) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	binary.BigEndian.PutUint64(id[8:], random)
	id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
	return id
}

// Store writes the past into the databases and returns its orders.
func (h History) Store(ctx context.Context, dbs map[string]*pgxpool.Pool) (ids []uuid.UUID, err error) {
	moved, paid := map[string]int64{}, map[string]int64{}
	var products []string
	err = h.each(func(o sqlfloor.Order, _ time.Time) error {
		ids = append(ids, o.ID)
		paid[o.UserID] -= o.Amount
		paid[workload.Merchant] += o.Amount
		for i, p := range o.Products {
			if moved[p] == 0 {
				products = append(products, p)
			}
			moved[p] += o.Units[i]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, t := range []struct {
		service, table string
		columns        string
		row            func(o sqlfloor.Order, at time.Time) []any
	}{
		{"order", "orders", "id user_id items amount currency status history created_at settled_at", func(o sqlfloor.Order, at time.Time) []any {
			return []any{o.ID, o.UserID, o.Items, o.Amount, "EUR", "CONFIRMED", sqlfloor.History(at, at.Add(5*time.Millisecond)), at, at.Add(5 * time.Millisecond)}
		}},
		{"inventory", "reservations", "order_id status items reason created_at", func(o sqlfloor.Order, at time.Time) []any {
			return []any{o.ID, "RESERVED", o.Items, "", at}
		}},
		{"payment", "payments", "order_id id user_id amount currency status reason created_at", func(o sqlfloor.Order, at time.Time) []any {
			return []any{o.ID, o.ID, o.UserID, o.Amount, "EUR", "COMPLETED", "", at}
		}},
		{"payment", "entries", "account_id transfer_id kind amount counterparty created_at", func(o sqlfloor.Order, at time.Time) []any {
			return []any{o.UserID, o.ID, "charge", -o.Amount, workload.Merchant, at}
		}},
		{"payment", "entries", "account_id transfer_id kind amount counterparty created_at", func(o sqlfloor.Order, at time.Time) []any {
			return []any{workload.Merchant, o.ID, "charge", o.Amount, o.UserID, at}
		}},
		{"order", "inbox", "consumer id seen_at", func(o sqlfloor.Order, at time.Time) []any { return []any{"order", o.ID, at} }},
		{"inventory", "inbox", "consumer id seen_at", func(o sqlfloor.Order, at time.Time) []any { return []any{"inventory", o.ID, at} }},
		{"payment", "inbox", "consumer id seen_at", func(o sqlfloor.Order, at time.Time) []any { return []any{"payment", o.ID, at} }},
	} {
		if err := h.copyTo(ctx, dbs[t.service], t.table, strings.Fields(t.columns), t.row); err != nil {
			return nil, fmt.Errorf("store %d orders in %s of %s: %w", h.orders, t.table, t.service, err)
		}
	}
	units := make([]int64, len(products))
	for i, p := range products {
		units[i] = moved[p]
	}
	if _, err := dbs["inventory"].Exec(ctx, sqlfloor.MoveUnitsSQL, products, units); err != nil {
		return nil, fmt.Errorf("move the units of %d orders: %w", h.orders, err)
	}
	accounts, amounts := make([]string, 0, len(paid)), make([]int64, 0, len(paid))
	for id, amount := range paid {
		accounts, amounts = append(accounts, id), append(amounts, amount)
	}
	if _, err := dbs["payment"].Exec(ctx, sqlfloor.MoveBalancesSQL, accounts, amounts); err != nil {
		return nil, fmt.Errorf("move the money of %d orders: %w", h.orders, err)
	}
	return ids, nil
}

// copyTo streams a table's rows, and leaves it as autovacuum would have by now.
func (h History) copyTo(ctx context.Context, db *pgxpool.Pool, table string, columns []string, row func(sqlfloor.Order, time.Time) []any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows := make(chan []any, 1000)
	go func() { // ends with the last row, or with ctx
		defer close(rows)
		_ = h.each(func(o sqlfloor.Order, at time.Time) error {
			select {
			case rows <- row(o, at):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	source := pgx.CopyFromFunc(func() ([]any, error) { return <-rows, nil })
	if _, err := db.CopyFrom(ctx, pgx.Identifier{table}, columns, source); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `VACUUM ANALYZE `+table)
	return err
}
