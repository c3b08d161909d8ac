package payment

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// balanceFolder adds what is pending to balances now and then, so that reads and refunds find few rows to add up. Any
// number of instances may run. An account that somebody holds is left alone: a debit folds it by itself.
type balanceFolder struct {
	db    *pgxpool.Pool
	log   *slog.Logger
	every time.Duration
}

// foldAtOnce bounds the accounts that one transaction folds.
const foldAtOnce = 200

// Run folds until ctx ends, and then returns nil. A fault is logged: a balance that is not folded is right all the
// same.
func (f *balanceFolder) Run(ctx context.Context) error {
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		if err := f.fold(ctx); err != nil && ctx.Err() == nil {
			f.log.WarnContext(ctx, "balances not folded, trying again later", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// fold does it once, for all accounts.
func (f *balanceFolder) fold(ctx context.Context) error {
	for after := ""; ; {
		rows, _ := f.db.Query(ctx, findPendingSQL, foldAtOnce, after) // the error surfaces in the collector
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("find what is pending: %w", err)
		}
		if len(found) == 0 {
			return nil
		}
		if err := f.some(ctx, found); err != nil {
			return err
		}
		after = found[len(found)-1]
	}
}

// some folds these accounts. Rows that are deleted are those that their statement sees, be they numbered in whatever
// order.
func (f *balanceFolder) some(ctx context.Context, found []string) error {
	err := pg.InTx(ctx, f.db, func(tx pgx.Tx) error {
		rows, _ := tx.Query(ctx, lockToFoldSQL, found) // the error surfaces in the collector
		free, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		var b pgx.Batch
		b.Queue(foldSQL, free)
		return pg.Defer(ctx, tx, &b)
	})
	if err != nil {
		return fmt.Errorf("fold %d accounts: %w", len(found), err)
	}
	return nil
}
