package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/pg"
)

// A transfer whose entries do not sum to zero lacks one, or has one too many. Balances show which, so that what it
// touches stays as it is until it is whole: an account that is on either side of it, a payment whose order it was for.
// So it does while both entries do not tell the same of it (mirror.go). Whatever such a transfer does not touch is
// counted anew all the same.

// refuseBroken refuses to count an account anew by entries of such a transfer. It needs no lock: transfers are written
// whole, and entries are never changed, so that none comes to be but by another hand.
func (r *repairer) refuseBroken(ctx context.Context, account string) error {
	var transfer string
	var half bool
	err := pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		var plan pgx.Batch
		plan.Queue(`SET LOCAL enable_seqscan = on`)
		if err := pg.Defer(ctx, tx, &plan); err != nil {
			return err
		}
		return tx.QueryRow(ctx, brokenOfSQL, account).Scan(&transfer, &half)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("look for transfers of account %s that are not whole: %w", labelOf(account), err)
	case half:
		return &refusedError{Refusal{unclear, fmt.Sprintf("transfer %s of account %s is not whole: the balance tells what it lacks", transfer, labelOf(account))}}
	}
	return &refusedError{Refusal{unclear, fmt.Sprintf("the entries of transfer %s do not tell of one transfer: by them, money of another account would be counted: correct that first", transfer)}}
}

// refuseHalf refuses to make a payment what a transfer says that is not whole.
func refuseHalf(ctx context.Context, tx pgx.Tx, order uuid.UUID) error {
	var half bool
	if err := tx.QueryRow(ctx, halvesSQL, order).Scan(&half); err != nil || !half {
		return err
	}
	return &refusedError{Refusal{unclear, "a transfer of the order is not whole: recount that first"}}
}

// refuseUnlike refuses to say that a payment is what the ledger says while the entries of a transfer of its order do not
// tell of one transfer: read from either side, the ledger says something else. It needs no lock, as refuseBroken.
func (r *repairer) refuseUnlike(ctx context.Context, order uuid.UUID) error {
	var unlike bool
	if err := r.db.QueryRow(ctx, unmirroredOfSQL, order).Scan(&unlike); err != nil {
		return fmt.Errorf("look for transfers of order %s that are no mirror: %w", order, err)
	}
	if !unlike {
		return nil
	}
	return &refusedError{Refusal{unclear, "the entries of a transfer of the order do not tell of one transfer: correct that first"}}
}
