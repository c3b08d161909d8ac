package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The first attempt of an order stays, be it an earlier one of the same batch or another transaction's, whose end the
// insert waits for. Rows are inserted by order id, so that two transactions with the same orders cannot wait for each
// other.
const (
	addPaymentsSQL = `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason)
SELECT order_id, id, user_id, amount, currency, status, reason
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[]) WITH ORDINALITY
    AS attempt (order_id, id, user_id, amount, currency, status, reason, n)
ORDER BY order_id, n
ON CONFLICT DO NOTHING RETURNING order_id, id`

	readPaymentsSQL = `SELECT order_id, id, user_id, amount, currency, status, reason FROM payments WHERE order_id = ANY($1)`

	findPaymentSQL = `SELECT order_id, id, user_id, amount, currency, status, reason, created_at FROM payments WHERE order_id = $1`
)

// settle stores the attempts of orders that have none yet, and returns what stands for each order: in one round-trip, unless
// an order comes again.
func settle(ctx context.Context, tx pgx.Tx, attempts []Payment) (map[uuid.UUID]Payment, error) {
	n := len(attempts)
	orders, ids := make([]uuid.UUID, n), make([]uuid.UUID, n)
	users, currencies, statuses, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	amounts := make([]int64, n)
	byID := make(map[uuid.UUID]Payment, n)
	for i, p := range attempts {
		orders[i], ids[i], users[i], amounts[i] = p.OrderID, p.ID, p.UserID, p.Amount
		currencies[i], statuses[i], reasons[i] = p.Currency, string(p.Status), p.Reason
		byID[p.ID] = p
	}
	stored := make(map[uuid.UUID]Payment, n)
	rows, _ := tx.Query(ctx, addPaymentsSQL, orders, ids, users, amounts, currencies, statuses, reasons) // the error surfaces in the reader
	var order, id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&order, &id}, func() error { stored[order] = byID[id]; return nil }); err != nil {
		return nil, fmt.Errorf("add the payments of %d orders: %w", n, err)
	}
	if len(stored) == n {
		return stored, nil
	}
	rows, _ = tx.Query(ctx, readPaymentsSQL, orders)
	known, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payment])
	if err != nil {
		return nil, fmt.Errorf("read the payments of %d orders: %w", n, err)
	}
	for _, p := range known {
		stored[p.OrderID] = p
	}
	return stored, nil
}

// Record is a payment as it is stored.
type Record struct {
	Payment
	CreatedAt time.Time `json:"createdAt"`
}

// findPayment returns false where the order has no payment.
func findPayment(ctx context.Context, db *pgxpool.Pool, order uuid.UUID) (Record, bool, error) {
	rows, _ := db.Query(ctx, findPaymentSQL, order) // the error surfaces in the collector
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Record])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Record{}, false, nil
	case err != nil:
		return Record{}, false, fmt.Errorf("read the payment of order %s: %w", order, err)
	}
	return p, true, nil
}
