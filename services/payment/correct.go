package payment

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// correction is what a person posts where no rule says what is right. As a transfer of its own it moves an amount from
// one account to another. To a transfer that lacks an entry it adds that one, of which it names the side; the other is
// empty. Entries are never changed.
type correction struct {
	id       uuid.UUID
	transfer uuid.UUID // its own, or the one that it completes
	kind     Kind      // of the entries that it adds; not asked for

	debit, credit string // whose accounts
	amount        int64  // minor units, positive
	currency      string
	order         uuid.UUID // zero: of none; of one that completes a transfer it is that transfer's
	note, by      string
	createdAt     time.Time
}

// completes tells whether it adds to a transfer that is there.
func (c correction) completes() bool { return c.transfer != c.id }

// sides are the entries that it adds.
func (c correction) sides() (all []side) {
	if c.debit != "" {
		all = append(all, side{c.debit, c.kind, -c.amount})
	}
	if c.credit != "" {
		all = append(all, side{c.credit, c.kind, c.amount})
	}
	return all
}

// doesNotBalance refuses a correction that does not make a transfer whole.
const doesNotBalance = "does-not-balance"

var errNoTransfer = errors.New("there are no entries of the transfer")

// The id comes first, as that of a transfer does. A refusal stores nothing: once its reason is gone, the correction can
// be sent again.
const (
	correctionColumns = `id, transfer_id, kind, debit, credit, amount, currency, coalesce(order_id, '00000000-0000-0000-0000-000000000000'), note, asked_by, created_at`
)

func (c *correction) targets() []any {
	return []any{&c.id, &c.transfer, &c.kind, &c.debit, &c.credit, &c.amount, &c.currency, &c.order, &c.note, &c.by, &c.createdAt}
}

// errDry rolls back what was only to be shown.
var errDry = errors.New("only to be shown")

// correct posts a correction once, however often it is asked to, and returns it as it is stored. A dry run posts
// nothing, and returns or refuses the same. It is refused, as any transfer, where the debited account is frozen or
// would be below zero.
func (k bank) correct(ctx context.Context, db *pgxpool.Pool, asked correction, dry bool) (correction, error) {
	c := asked
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		c = asked
		err := tx.QueryRow(ctx, addCorrectionSQL, c.id, c.transfer, Correction, c.debit, c.credit, c.amount, c.currency, c.order, c.note, c.by).Scan(&c.createdAt)
		if errors.Is(err, pgx.ErrNoRows) {
			return c.again(ctx, tx)
		}
		if err != nil {
			return err
		}
		var b pgx.Batch
		if c.completes() {
			err = k.complete(ctx, tx, &c, &b)
		} else {
			err = k.post(ctx, tx, &c, &b)
		}
		switch {
		case err != nil:
			return err
		case dry:
			return errDry
		}
		b.Queue(setCorrectionSQL, c.id, string(c.kind), c.order)
		return tx.SendBatch(ctx, &b).Close()
	})
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return correction{}, refused
	}
	if err != nil && !errors.Is(err, errDry) {
		return correction{}, fmt.Errorf("correction %s: %w", asked.id, err)
	}
	return c, nil
}

// again reads a correction that was posted before; another one under its id is an error.
func (c *correction) again(ctx context.Context, tx pgx.Tx) error {
	asked := *c
	if err := tx.QueryRow(ctx, readCorrectionSQL, asked.id).Scan(c.targets()...); err != nil {
		return err
	}
	if asked.kind, asked.createdAt = c.kind, c.createdAt; asked.completes() {
		asked.order = c.order
	}
	if asked != *c {
		return errIDReused
	}
	return nil
}

// post queues a correction that is a transfer of its own.
func (k bank) post(ctx context.Context, tx pgx.Tx, c *correction, b *pgx.Batch) error {
	c.kind = Correction
	w := newWanted()
	w.debit[accountKey{c.debit, c.currency}], w.other[accountKey{c.credit, c.currency}] = true, true
	k.openOwn(w)
	work, err := k.load(ctx, tx, w, nil)
	if err != nil {
		return err
	}
	for _, owner := range []string{c.debit, c.credit} {
		if work.find(owner, c.currency) == nil {
			return unknownAccount{owner, c.currency}
		}
	}
	refusal := work.transfer(Transfer{ID: c.transfer, Kind: c.kind, From: c.debit, To: c.credit, Amount: c.amount, Currency: c.currency, Order: c.order})
	if refusal != nil {
		return &refusedError{*refusal}
	}
	work.queueSave(b)
	return nil
}

// openOwn has the system's own accounts opened that are wanted; users' are not.
func (k bank) openOwn(w *wanted) {
	for _, keys := range []map[accountKey]bool{w.debit, w.other} {
		for key := range keys {
			if _, internal := k.internal(key.owner); internal {
				w.open[key] = true
			}
		}
	}
}

// complete queues the entry that a transfer lacks. On the account that an entry of the transfer names as its other side
// it is of that one's kind, as the lost one was. On any other, be it the entry's own or suspense, it is a correction:
// the transfer has moved so much less. The balance moves with it, unless it is nearer to the account's entries without:
// then it holds already what the entry says.
func (k bank) complete(ctx context.Context, tx pgx.Tx, c *correction, b *pgx.Batch) error {
	owner, amount := c.credit, c.amount
	if c.debit != "" {
		owner, amount = c.debit, -c.amount
	}
	key := k.own(accountKey{owner, c.currency})
	a, found, err := k.lockToComplete(ctx, tx, c.transfer, key)
	if err != nil {
		return err
	}
	if key.currency != c.currency {
		return &refusedError{Refusal{currencyMismatch, fmt.Sprintf("account %s is in %s, not in %s", owner, key.currency, c.currency)}}
	}
	if sum(found) != -amount {
		return &refusedError{Refusal{doesNotBalance, fmt.Sprintf("the transfer's %d entries sum to %d, and %d would be added", len(found), sum(found), amount)}}
	}
	e := entry{account: a, counterparty: found[0].account, transfer: c.transfer, kind: Correction, amount: amount, order: found[0].order}
	named := func(f entry) bool {
		return f.counterparty == a && f.kind != Correction && (f.amount > 0) != (amount > 0)
	}
	if other := slices.IndexFunc(found, named); other >= 0 {
		e.kind, e.counterparty = found[other].kind, found[other].account
	}
	c.kind, c.order = e.kind, e.order

	var surplus int64
	if err := tx.QueryRow(ctx, surplusSQL, a).Scan(&surplus); err != nil {
		return err
	}
	w := newWanted()
	w.debit[key] = true
	work, err := k.load(ctx, tx, w, nil)
	if err != nil {
		return err
	}
	to := work.byID[a]
	if moves := abs(surplus-amount) >= abs(surplus); moves {
		switch {
		case amount < 0 && to.Frozen:
			return &refusedError{Refusal{accountFrozen, fmt.Sprintf("account %s is frozen", labelOf(a))}}
		case !to.MayGoNegative && to.Balance+amount < 0:
			return &refusedError{Refusal{insufficientBalance, fmt.Sprintf("insufficient balance: %d wanted, %d available", -amount, to.Balance)}}
		}
		work.post(to, amount)
	}
	work.entries = append(work.entries, e)
	work.queueSave(b)
	return nil
}

// lockToComplete locks the accounts of a transfer's entries, and the one that gets another, by id like everybody. It
// returns that one's id, and the transfer's entries, which nobody changes then.
func (k bank) lockToComplete(ctx context.Context, tx pgx.Tx, transfer uuid.UUID, key accountKey) (a string, found []entry, err error) {
	if found, err = entriesOf(ctx, tx, transfer); err != nil {
		return "", nil, err
	}
	if len(found) == 0 {
		return "", nil, errNoTransfer
	}
	var ids []string
	for _, e := range found {
		ids = append(ids, e.account)
	}
	rows, _ := tx.Query(ctx, currenciesOfSQL, ids) // the error surfaces in the collector
	currencies, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", nil, err
	}
	for _, is := range currencies {
		if is != key.currency {
			return "", nil, &refusedError{Refusal{currencyMismatch, fmt.Sprintf("the transfer is in %s, not in %s", is, key.currency)}}
		}
	}
	if _, internal := k.internal(key.owner); internal {
		var open pgx.Batch
		queueOpen(&open, []accountKey{key}, k, func(rows pgx.Rows) error { rows.Close(); return rows.Err() })
		if err := tx.SendBatch(ctx, &open).Close(); err != nil {
			return "", nil, err
		}
	}
	if a, err = idOf(ctx, tx, key); err != nil {
		return "", nil, err
	}
	ids = append(ids, a)
	slices.Sort(ids)
	if _, err := tx.Exec(ctx, lockForRecountSQL, slices.Compact(ids)); err != nil {
		return "", nil, err
	}
	found, err = entriesOf(ctx, tx, transfer) // somebody else may have completed it meanwhile
	return a, found, err
}

func abs(n int64) int64 { return max(n, -n) }

// listCorrections returns up to limit corrections, the newest first, that are older than one; 0: from the newest. older
// is what the next page begins from.
func listCorrections(ctx context.Context, db *pgxpool.Pool, before int64, limit int) (all []correction, older int64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	rows, _ := db.Query(ctx, listCorrectionsSQL, before, limit+1) // the error surfaces in the reader
	var c correction
	var n, last int64
	if _, err = pgx.ForEachRow(rows, append(c.targets(), &n), func() error {
		if len(all) == limit {
			older = last
			return nil
		}
		all, last = append(all, c), n
		return nil
	}); err != nil {
		return nil, 0, fmt.Errorf("list the corrections: %w", err)
	}
	return all, older, nil
}
