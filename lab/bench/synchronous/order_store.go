package synchronous

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
)

const (
	insertOrderSQL = `INSERT INTO orders (id, user_id, items, amount, currency, status, created_at) VALUES ($1, $2, $3, $4, $5, 'PENDING', $6)`

	settleOrderSQL = `UPDATE orders SET status = $2, reason = $3, settled_at = $4 WHERE id = $1 AND status = 'PENDING'`

	abandonedOrdersSQL = `SELECT id FROM orders WHERE status = 'PENDING' AND created_at < $1 ORDER BY created_at LIMIT 10000`
)

// draft is what a client orders.
type draft struct {
	UserID   string `json:"userId" minLength:"1" maxLength:"128"`
	Items    []item `json:"items" minItems:"1" maxItems:"100" nullable:"false"`
	Amount   int64  `json:"amount" minimum:"1" maximum:"1000000000000000"`
	Currency string `json:"currency" pattern:"^[A-Z]{3}$"`
}

type item struct {
	ProductID string `json:"productId" pattern:"^[A-Za-z0-9._-]{1,64}$"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000000"`
}

func insertOrder(ctx context.Context, db *pgxpool.Pool, id uuid.UUID, d draft, at time.Time) error {
	items, err := json.Marshal(d.Items)
	if err != nil {
		return fmt.Errorf("encode the items of order %s: %w", id, err)
	}
	if _, err := db.Exec(ctx, insertOrderSQL, id, d.UserID, string(items), d.Amount, d.Currency, at); err != nil {
		return fmt.Errorf("store order %s: %w", id, err)
	}
	return nil
}

// settleOrder ends an order. One that has ended stays as it is.
func settleOrder(ctx context.Context, db *pgxpool.Pool, id uuid.UUID, status, reason string) error {
	if _, err := db.Exec(ctx, settleOrderSQL, id, status, reason, clock.Now()); err != nil {
		return fmt.Errorf("settle order %s: %w", id, err)
	}
	return nil
}

func abandonedOrders(ctx context.Context, db *pgxpool.Pool, before time.Time) ([]uuid.UUID, error) {
	rows, _ := db.Query(ctx, abandonedOrdersSQL, before) // the error surfaces in the collector
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("look for abandoned orders: %w", err)
	}
	return ids, nil
}
