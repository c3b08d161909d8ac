package payment

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
)

// Each of these is a statement of its own, whose snapshot is taken when the locks before it are held: what was pending is read
// after the balance can no longer change. As one statement, a balance that was waited for would be newer than the pending rows
// beside it, and count some of them twice.
//
// Accounts are inserted, and then locked, by id: no two transactions can wait for each other.
const (
	openAccountsSQL = `INSERT INTO accounts (id, currency, overdraft)
SELECT id, currency, overdraft FROM unnest($1::text[], $2::text[], $3::boolean[]) AS opened (id, currency, overdraft)
WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = opened.id COLLATE "C") -- nearly all exist, and need not be tried
ORDER BY id COLLATE "C"
ON CONFLICT DO NOTHING RETURNING id`

	lockAccountsSQL = `SELECT id, currency, balance, overdraft, frozen FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	takePendingSQL = `DELETE FROM pending WHERE account_id = ANY($1) RETURNING account_id, amount`

	readAccountsSQL = `SELECT id, currency, balance, overdraft, frozen FROM accounts WHERE id = ANY($1)`
)

// wanted is the accounts that a transaction needs.
type wanted struct {
	open  map[string]string // currency by id: opened if they do not exist
	debit map[string]bool   // to be debited
	other map[string]bool   // to be credited
}

func newWanted() *wanted {
	return &wanted{open: map[string]string{}, debit: map[string]bool{}, other: map[string]bool{}}
}

// opening is what a load finds out: the accounts that it opened.
type opening struct {
	bank   bank
	books  *books
	opened []string
}

// queueLoad queues what opens, locks, folds and reads the accounts. The books are complete when the batch is done and begin
// was called.
func (k bank) queueLoad(b *pgx.Batch, w *wanted) *opening {
	o := &opening{bank: k, books: newBooks()}
	if len(w.open) > 0 {
		for _, currency := range w.open {
			if k.opening > 0 {
				w.other[k.externalOf(currency)] = true
			}
		}
		open := maps.Clone(w.open)
		for _, ids := range []map[string]bool{w.debit, w.other} {
			for id := range ids {
				if currency, ok := k.internal(id); ok { // whatever is asked for, its name says
					open[id] = currency
				}
			}
		}
		ids := slices.Sorted(maps.Keys(open))
		currencies, overdrafts := make([]string, len(ids)), make([]bool, len(ids))
		for i, id := range ids {
			currencies[i], overdrafts[i] = open[id], !checked(id)
		}
		b.Queue(openAccountsSQL, ids, currencies, overdrafts).Query(func(rows pgx.Rows) (err error) {
			o.opened, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		})
	}
	var lock, read []string
	for id := range w.debit {
		if checked(id) {
			lock = append(lock, id)
		} else {
			read = append(read, id)
		}
	}
	for id := range w.other {
		if !w.debit[id] {
			read = append(read, id)
		}
	}
	if len(lock) > 0 {
		b.Queue(lockAccountsSQL, lock).Query(func(rows pgx.Rows) error { return o.books.read(rows, true) })
		b.Queue(takePendingSQL, lock).Query(o.books.take)
	}
	if len(read) > 0 {
		b.Queue(readAccountsSQL, read).Query(func(rows pgx.Rows) error { return o.books.read(rows, false) })
	}
	return o
}

// begin gives the accounts that were opened their first balance.
func (o *opening) begin(w *wanted) *books {
	slices.Sort(o.opened)
	for _, id := range o.opened {
		if currency, ok := w.open[id]; ok && o.bank.opening > 0 {
			if _, internal := o.bank.internal(id); internal {
				continue
			}
			// A refusal leaves the account empty: where money comes from is frozen.
			_ = o.books.transfer(Transfer{ID: clock.NewID(), Kind: Opening, From: o.bank.externalOf(currency), To: id, Amount: o.bank.opening, Currency: currency})
		}
	}
	return o.books
}

func (b *books) read(rows pgx.Rows, locked bool) error {
	var a Account
	_, err := pgx.ForEachRow(rows, []any{&a.ID, &a.Currency, &a.Balance, &a.MayGoNegative, &a.Frozen}, func() error {
		b.accounts[a.ID] = &account{a, locked}
		return nil
	})
	return err
}

func (b *books) take(rows pgx.Rows) error {
	var id string
	var amount int64
	_, err := pgx.ForEachRow(rows, []any{&id, &amount}, func() error { return b.fold(id, amount) })
	return err
}

const (
	moveBalancesSQL = `UPDATE accounts a SET balance = balance + amount
FROM unnest($1::text[], $2::bigint[]) AS moved (id, amount) WHERE a.id = moved.id`

	addPendingSQL = `INSERT INTO pending (account_id, amount) SELECT * FROM unnest($1::text[], $2::bigint[])`

	addEntriesSQL = `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::uuid[])`
)

// queueSave queues what writes the changes. The rows that it updates are locked, and that none goes below zero was checked; the
// schema checks it again.
func (b *books) queueSave(batch *pgx.Batch) {
	if ids, amounts := nonzero(b.moved); len(ids) > 0 {
		batch.Queue(moveBalancesSQL, ids, amounts)
	}
	if ids, amounts := nonzero(b.pending); len(ids) > 0 {
		batch.Queue(addPendingSQL, ids, amounts)
	}
	n := len(b.entries)
	if n == 0 {
		return
	}
	accounts, others, kinds := make([]string, n), make([]string, n), make([]string, n)
	transfers, amounts, orders := make([]uuid.UUID, n), make([]int64, n), make([]*uuid.UUID, n)
	for i, e := range b.entries {
		if e.order != uuid.Nil {
			orders[i] = &e.order
		}
		accounts[i], others[i], kinds[i], transfers[i], amounts[i] = e.account, e.counterparty, string(e.kind), e.transfer, e.amount
	}
	batch.Queue(addEntriesSQL, accounts, transfers, kinds, amounts, others, orders)
}

func nonzero(sums map[string]int64) (ids []string, amounts []int64) {
	for _, id := range slices.Sorted(maps.Keys(sums)) {
		if sums[id] != 0 {
			ids, amounts = append(ids, id), append(amounts, sums[id])
		}
	}
	return ids, amounts
}

// load opens, locks, folds and reads accounts in one round trip, together with what more holds.
func (k bank) load(ctx context.Context, tx pgx.Tx, w *wanted, more *pgx.Batch) (*books, error) {
	var b pgx.Batch
	o := k.queueLoad(&b, w)
	if more != nil {
		b.QueuedQueries = append(b.QueuedQueries, more.QueuedQueries...)
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("lock %d accounts: %w", len(w.debit), err)
	}
	return o.begin(w), nil
}
