package payment

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// refuseLoss refuses to count an account anew from entries of which some are lost, or one whose row is.
func refuseLoss(ctx context.Context, tx pgx.Tx, id string, there bool) error {
	if !there {
		var entries bool
		if err := tx.QueryRow(ctx, hasEntriesSQL, id).Scan(&entries); err != nil || !entries {
			return err
		}
		return &refusedError{Refusal{unclear, fmt.Sprintf(
			"there are entries of account %s, and its row is lost: only a person can say whether it was frozen. Open it again with POST /accounts, freeze it if it was, and count anew", labelOf(id))}}
	}
	var lost uuid.UUID
	switch err := tx.QueryRow(ctx, lostOfAccountSQL, id).Scan(&lost); {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return &refusedError{Refusal{unclear, fmt.Sprintf("the entries of transfer %s are lost, which account %s holds by its record: count that anew first", lost, labelOf(id))}}
}

// restoreTransfer makes a transfer's record and its entries agree, where one of them is lost: entries are added to b.
// found sum to zero, or are none. The transfer's accounts are locked.
func restoreTransfer(ctx context.Context, tx pgx.Tx, id uuid.UUID, found []entry, b *unitOfWork) error {
	var t settled
	err := tx.QueryRow(ctx, readTransferSQL, id).Scan(&t.ID, &t.Kind, &t.From, &t.To, &t.Amount, &t.Currency, &t.Type, &t.Reason, &t.CreatedAt)
	recorded := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	moved := traceOf(found)
	var one Transfer
	if len(moved) == 1 {
		one = moved[0]
	}
	switch {
	case recorded && t.Type != "" && len(moved) == 0, !recorded && one.Kind != Deposit && one.Kind != Move:
		return nil
	case recorded && t.Type == "" && len(found) == 0:
		return putBack(ctx, tx, t.Transfer, b)
	}
	if err := tx.QueryRow(ctx, currencyOfSQL, found[0].account).Scan(&one.Currency); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	switch {
	case !recorded && len(found) == 2 && one.Currency != "":
		return tx.QueryRow(ctx, addTransferSQL, id, string(one.Kind), one.From, one.To, one.Amount, one.Currency).Scan(&t.CreatedAt)
	case recorded && t.Type == "" && one.Kind == t.Kind && one.Currency == t.Currency && one.From == t.From && one.To == t.To && one.Amount == t.Amount:
		return nil
	}
	return &refusedError{Refusal{unclear, fmt.Sprintf("its record is of a %s of %d %s from %s to %s %s, and its entries moved %d %s as a %s from %s to %s: only a person can say what is right",
		t.Kind, t.Amount, t.Currency, t.From, t.To, t.Type, one.Amount, one.Currency, one.Kind, one.From, one.To)}}
}

// putBack adds to b the entries of a transfer that are both lost, if the balances of both accounts, which are locked,
// hold what it moved.
func putBack(ctx context.Context, tx pgx.Tx, t Transfer, b *unitOfWork) error {
	t, err := byIDs(ctx, tx, t)
	if err != nil {
		return err
	}
	from, to, err := surpluses(ctx, tx, t)
	if err != nil {
		return err
	}
	if from > -t.Amount || to < t.Amount {
		return &refusedError{Refusal{unclear, fmt.Sprintf("its entries are lost, and beyond their entries %s holds %d and %s holds %d: only a person can say whether %d were moved",
			labelOf(t.From), from, labelOf(t.To), to, t.Amount)}}
	}
	b.entries = append(b.entries, t.entries()...)
	return nil
}

// settleUncharged settles a payment that is COMPLETED and that the ledger has no charge of. If the balances hold it,
// its entries are lost, and are put back; otherwise it was not made.
func (r *repairer) settleUncharged(ctx context.Context, tx pgx.Tx, s stored, b *pgx.Batch) error {
	t := Transfer{ID: s.ID, Kind: Charge, From: s.UserID, To: r.cashier.bank.merchantOf(s.Currency), Amount: s.Amount, Currency: s.Currency, Order: s.OrderID}
	t, err := byIDs(ctx, tx, t)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, lockForRecountSQL, []string{t.From, t.To}); err != nil {
		return err
	}
	work := newUnitOfWork()
	err = putBack(ctx, tx, t, work)
	if _, refused := errors.AsType[*refusedError](err); refused {
		r.settle(b, s, Failed)
		return nil
	}
	work.queueSave(b)
	return err
}

// byIDs is the transfer between the ids of its accounts, in place of their owners. An owner who has none in its
// currency stays.
func byIDs(ctx context.Context, tx pgx.Tx, t Transfer) (Transfer, error) {
	for _, account := range []*string{&t.From, &t.To} {
		if err := tx.QueryRow(ctx, idOfSQL, ownerOf(*account), t.Currency).Scan(account); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return t, err
		}
	}
	return t, nil
}

// surpluses are by how much both accounts of a transfer hold more than their entries say. An account that is not there
// holds nothing.
func surpluses(ctx context.Context, tx pgx.Tx, t Transfer) (from, to int64, err error) {
	for account, n := range map[string]*int64{t.From: &from, t.To: &to} {
		if err := tx.QueryRow(ctx, surplusSQL, account).Scan(n); err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return 0, 0, err
		}
	}
	return from, to, nil
}

// entries are the two sides of a transfer between ids.
func (t Transfer) entries() []entry {
	return []entry{{t.From, t.To, t.ID, t.Kind, -t.Amount, t.Order}, {t.To, t.From, t.ID, t.Kind, t.Amount, t.Order}}
}
