package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/pg"
)

// A transfer whose entries do not sum to zero lacks one, or has one too many. Balances show which, so that what it touches stays as it is until
// it is whole: an account that is on either side of it, a payment whose order it was for. Whatever it does not touch is counted anew all the same.

// unwholeOfSQL finds a transfer that is not whole and has the account on a side. Transfers are in no index: it reads all entries.
const unwholeOfSQL = `SELECT transfer_id::text FROM entries GROUP BY transfer_id
HAVING sum(amount) <> 0 AND bool_or(account_id = $1 OR counterparty = $1) ORDER BY 1 LIMIT 1`

// refuseUnwhole refuses to count an account anew by entries of a transfer that is not whole. It needs no lock: transfers are written whole, and
// entries are never changed, so that no such transfer comes to be but by another hand.
func (r *repairer) refuseUnwhole(ctx context.Context, account string) error {
	var transfer string
	err := pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		var plan pgx.Batch
		plan.Queue(`SET LOCAL enable_seqscan = on`)
		if err := pg.Defer(ctx, tx, &plan); err != nil {
			return err
		}
		return tx.QueryRow(ctx, unwholeOfSQL, account).Scan(&transfer)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for transfers of account %s that are not whole: %w", account, err)
	}
	return &refusedError{Refusal{unclear, fmt.Sprintf("transfer %s of account %s is not whole: the balance tells what it lacks", transfer, account)}}
}

// refuseHalf refuses to make a payment what a transfer says that is not whole.
func refuseHalf(ctx context.Context, tx pgx.Tx, order uuid.UUID) error {
	var half bool
	if err := tx.QueryRow(ctx, halvesSQL, order).Scan(&half); err != nil || !half {
		return err
	}
	return &refusedError{Refusal{unclear, "a transfer of the order is not whole: recount that first"}}
}
