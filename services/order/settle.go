package order

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
)

// lockedOrder is what settling an order needs of its row, which the transaction holds locked.
type lockedOrder struct {
	id        uuid.UUID
	createdAt time.Time
	was       Status // as it is stored
	Progress
	changed bool
}

// Rows are locked in the order of their ids, so that two members who hold news of the same orders wait for each other
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
