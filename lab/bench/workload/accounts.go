package workload

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// Balance is what every user's account holds at the beginning, so that no order is refused for lack of it.
	Balance = 1_000_000_000_000

	// Merchant is the account that all orders are paid to.
	Merchant = "merchant.EUR"

	outside = "external.EUR"
)

// fundSQL opens all accounts, as payment would with their first use.
var fundSQL = []string{
	`INSERT INTO accounts (id, currency, balance, overdraft) VALUES ('` + Merchant + `', 'EUR', 0, false), ('` + outside + `', 'EUR', -$1::bigint * $2::bigint, true)`,
	`INSERT INTO accounts (id, currency, balance) SELECT 'user-' || n, 'EUR', $2::bigint FROM generate_series(0, $1::bigint - 1) AS n`,
	`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
SELECT e.account, t.id, 'opening', e.amount, e.other
FROM (SELECT n, uuidv7() AS id FROM generate_series(0, $1::bigint - 1) AS n) AS t,
    LATERAL (VALUES ('` + outside + `', -$2::bigint, 'user-' || n), ('user-' || n, $2::bigint, '` + outside + `')) AS e (account, amount, other)`,
}

// Fund gives every user plenty, in a database that has its schema and nobody in it.
func Fund(ctx context.Context, payment *pgxpool.Pool) error {
	for _, sql := range fundSQL {
		if _, err := payment.Exec(ctx, sql, int64(Users), int64(Balance)); err != nil {
			return fmt.Errorf("fund %d accounts: %w", Users, err)
		}
	}
	return nil
}
