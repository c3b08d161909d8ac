package verify

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Each is one statement, and so of one moment: money that moves meanwhile is on both sides or on none.
const (
	ledgerSQL = `SELECT 'all entries sum to ' || sum(amount) FROM entries HAVING sum(amount) <> 0`

	balancesSQL = `SELECT 'account ' || a.id || ' holds ' || a.balance || ' and pending ' || p.amount || ', its entries sum to ' || e.amount
FROM accounts a,
    LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM pending WHERE account_id = a.id) AS p,
    LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM entries WHERE account_id = a.id) AS e
WHERE a.balance + p.amount <> e.amount OR (a.balance < 0 AND NOT a.overdraft) ORDER BY a.id`

	paidSQL = `SELECT 'merchants hold ' || held.amount || ', COMPLETED payments are ' || paid.amount
FROM (SELECT coalesce(sum(amount), 0) AS amount FROM entries WHERE account_id LIKE 'merchant%') AS held,
    (SELECT coalesce(sum(amount), 0) AS amount FROM payments WHERE status = 'COMPLETED') AS paid
WHERE held.amount <> paid.amount`
)

// checkMoney holds the ledger to what must be true of it at any moment.
func checkMoney(ctx context.Context, db *pgxpool.Pool, r *violations) error {
	for _, sql := range []string{ledgerSQL, balancesSQL, paidSQL} {
		rows, _ := db.Query(ctx, sql) // the error surfaces in the collector
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("verify the ledger: %w", err)
		}
		for i, line := range wrong {
			if i == shown {
				r.that(false, "%d lines in all of the ledger are wrong", len(wrong))
				break
			}
			r.that(false, "%s", line)
		}
	}
	return nil
}
