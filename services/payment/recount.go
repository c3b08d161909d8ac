package payment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// recount makes a payment's status what the ledger says. One whose row is lost is there again then.
func (r *repairer) recount(ctx context.Context, order uuid.UUID) (facts.Fact, error) {
	if err := r.refuseUnlike(ctx, order); err != nil {
		return facts.Fact{}, err
	}
	there := func(s stored) bool {
		return s.status != facts.None && s.ledger() == s.Status && (s.state == "" || s.state == refundStates[s.Status])
	}
	for seen := ""; ; {
		f, changed, err := r.command(ctx, order, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
			if err := refuseHalf(ctx, tx, order); err != nil {
				return nil, err
			}
			switch is := s.ledger(); {
			case s.status == facts.None && !s.stray:
				return nil, &refusedError{Refusal{noPayment, "the order has no payment"}}
			case is == "":
				return nil, s.unclear(order)
			case is == Failed && s.Status == Completed:
				return nil, r.settleUncharged(ctx, tx, s, b)
			default:
				r.settle(b, s, is)
				return nil, nil
			}
		})
		if changed == "" || err != nil {
			return f, err
		}
		seen = changed // whatever it is
	}
}

// noCharge is why a payment failed that is not in the ledger.
const noCharge = "no charge in the ledger"

// settle makes a payment what the ledger says, and its refund with it. What was answered to its cancellation goes: it
// was about another status.
func (r *repairer) settle(b *pgx.Batch, s stored, is Status) {
	var reason string
	var code event.Code
	if is == Failed {
		reason, code = noCharge, event.CodeNoCharge
	}
	switch {
	case s.state == "" || s.state == refundStates[is]:
	case is == Refunded:
		b.Queue(doneRefundSQL, s.OrderID, r.cashier.now())
	default:
		b.Queue(dropRefundSQL, s.OrderID)
	}
	b.Queue(setStatusSQL, s.OrderID, string(is), reason, string(code))
	r.cashier.keys.Forget(b, refundKey(s.OrderID))
}

// balanceLow is the constraint that no balance is below zero that may not be.
const balanceLow = "accounts_not_below_zero"

// recountBalance makes the balance of the account with this id what its entries say, unless a transfer of its is not
// whole. ok is false where there is no such account.
func (r *repairer) recountBalance(ctx context.Context, id string) (a Account, ok bool, err error) {
	if err := r.refuseBroken(ctx, id); err != nil {
		return a, false, err
	}
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, lockForRecountSQL, []string{id})
		if err != nil {
			return err
		}
		if err := refuseLoss(ctx, tx, id, tag.RowsAffected() > 0); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, recountBalanceSQL, id)
		return err
	})
	if pg.Violates(err, balanceLow) {
		return a, true, &refusedError{Refusal{belowZero, fmt.Sprintf("by its entries account %s would be below zero, which it may not be", labelOf(id))}}
	}
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return a, true, refused
	}
	if err != nil {
		return a, false, fmt.Errorf("recount account %s: %w", labelOf(id), err)
	}
	owner, currency, _ := strings.Cut(id, furtherMark)
	return findAccount(ctx, r.db, owner, currency)
}

// recountTransfer makes a transfer whole that has one entry in place of two, or has lost its record or its entries. The
// balances tell which is wrong: if the other account holds what the missing entry says, that is written once more; if
// the entry's own account does not hold it, it is taken back by a correction. It returns the entries that the transfer
// has then, none where there is no such transfer.
func (r *repairer) recountTransfer(ctx context.Context, id uuid.UUID) (whole []entry, err error) {
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		found, err := entriesOf(ctx, tx, id)
		if err != nil {
			return err
		}
		var accounts []string
		rows, _ := tx.Query(ctx, accountsOfTransferSQL, id) // the error surfaces in the collector
		if accounts, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
		for _, e := range found {
			accounts = append(accounts, e.account, e.counterparty)
		}
		slices.Sort(accounts)
		if _, err := tx.Exec(ctx, lockForRecountSQL, slices.Compact(accounts)); err != nil {
			return err
		}
		if found, err = entriesOf(ctx, tx, id); err != nil { // somebody else may have done it meanwhile
			return err
		}
		b := newUnitOfWork()
		if whole = found; sum(found) == 0 {
			if err := restoreTransfer(ctx, tx, id, found, b); err != nil {
				return err
			}
		} else {
			missing, err := missing(ctx, tx, found)
			if err != nil {
				return err
			}
			b.entries = []entry{missing}
		}
		whole = append(found, b.entries...)
		var batch pgx.Batch
		b.queueSave(&batch)
		return tx.SendBatch(ctx, &batch).Close()
	})
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return nil, refused
	}
	if err != nil {
		return nil, fmt.Errorf("recount transfer %s: %w", id, err)
	}
	return whole, nil
}

// missing is the entry that makes a transfer whole.
func missing(ctx context.Context, tx pgx.Tx, found []entry) (entry, error) {
	if len(found) != 1 {
		return entry{}, &refusedError{Refusal{unclear, fmt.Sprintf("it has %d entries that sum to %d: only a person can say which are wrong, with POST /ledger/corrections", len(found), sum(found))}}
	}
	e := found[0]
	var own, other int64
	if err := tx.QueryRow(ctx, surplusSQL, e.account).Scan(&own); err != nil {
		return entry{}, err
	}
	err := tx.QueryRow(ctx, surplusSQL, e.counterparty).Scan(&other)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return entry{}, err
	case err == nil && other == -e.amount && own == 0:
		return entry{account: e.counterparty, counterparty: e.account, transfer: e.transfer, kind: e.kind, amount: -e.amount, order: e.order}, nil
	case own == -e.amount && other == 0:
		return entry{account: e.account, counterparty: e.counterparty, transfer: e.transfer, kind: Correction, amount: -e.amount, order: e.order}, nil
	}
	return entry{}, &refusedError{Refusal{unclear, fmt.Sprintf("beyond its entries %s holds %d and %s holds %d: only a person can say what the transfer of %d was, with POST /ledger/corrections",
		labelOf(e.account), own, labelOf(e.counterparty), other, e.amount)}}
}

func entriesOf(ctx context.Context, tx pgx.Tx, id uuid.UUID) ([]entry, error) {
	rows, _ := tx.Query(ctx, entriesOfSQL, id) // the error surfaces in the collector
	return pgx.CollectRows(rows, scanEntry)
}

func sum(entries []entry) (n int64) {
	for _, e := range entries {
		n += e.amount
	}
	return n
}
