package payment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
)

// Each of these is a statement of its own, whose snapshot is taken when the locks before it are held: what was pending
// is read after the balance can no longer change. As one statement, a balance that was waited for would be newer than
// the pending rows beside it, and count some of them twice.
//
// Accounts are inserted, and then locked, by id: no two transactions can wait for each other.
//
// Of a user, openAccountsSQL opens the first account, and openFurtherSQL, whose snapshot shows who was first whatever
// came at the same time, those in further currencies.
const (
	wantedJoin = ` FROM unnest($1::text[], $2::text[]) AS w (owner, currency) JOIN accounts a ON ` + ownerColumn + ` = w.owner AND a.currency = w.currency`
)

// wanted is the accounts that a transaction needs.
type wanted struct {
	open  map[accountKey]bool // opened if they do not exist
	debit map[accountKey]bool // to be debited
	other map[accountKey]bool // to be credited
}

func newWanted() *wanted {
	return &wanted{open: map[accountKey]bool{}, debit: map[accountKey]bool{}, other: map[accountKey]bool{}}
}

// opening is what a load finds out: the accounts that it opened.
type opening struct {
	bank   bank
	work   *unitOfWork
	opened []string
}

// queueLoad queues what opens, locks, folds and reads the accounts. The unit of work is complete when the batch is done
// and begin was called.
func (k bank) queueLoad(b *pgx.Batch, w *wanted) *opening {
	o := &opening{bank: k, work: newUnitOfWork()}
	if len(w.open) > 0 {
		k.queueOpen(b, w, o)
	}
	wanted := map[accountKey]bool{} // true: to be debited
	for key := range w.other {
		wanted[k.own(key)] = false
	}
	for key := range w.debit {
		wanted[k.own(key)] = true
	}
	var lock, read []accountKey
	for key, debit := range wanted {
		if debit && checked(key.owner) {
			lock = append(lock, key)
		} else {
			read = append(read, key)
		}
	}
	if len(lock) > 0 {
		owners, currencies := columns(lock)
		b.Queue(lockAccountsSQL, owners, currencies).Query(func(rows pgx.Rows) error { return o.work.read(rows, true) })
		b.Queue(takePendingSQL, owners, currencies).Query(o.work.take)
	}
	if len(read) > 0 {
		owners, currencies := columns(read)
		b.Queue(readAccountsSQL, owners, currencies).Query(func(rows pgx.Rows) error { return o.work.read(rows, false) })
	}
	return o
}

// queueOpen queues what opens accounts that do not exist.
func (k bank) queueOpen(b *pgx.Batch, w *wanted, o *opening) {
	open := maps.Clone(w.open)
	for key := range w.open {
		if k.opening > 0 {
			w.other[accountKey{k.externalOf(key.currency), key.currency}] = true
		}
	}
	for _, keys := range []map[accountKey]bool{w.debit, w.other} {
		for key := range keys {
			if _, ok := k.internal(key.owner); ok {
				open[key] = true
			}
		}
	}
	queueOpen(b, slices.SortedFunc(maps.Keys(open), func(x, y accountKey) int {
		return cmp.Or(strings.Compare(x.owner, y.owner), strings.Compare(x.currency, y.currency))
	}), k, func(rows pgx.Rows) error {
		opened, err := pgx.CollectRows(rows, pgx.RowTo[string])
		o.opened = append(o.opened, opened...)
		return err
	})
}

// queueOpen queues what opens these accounts, ordered by owner, where they do not exist. opened gets the ids of those
// that it opens.
func queueOpen(b *pgx.Batch, keys []accountKey, k bank, opened func(pgx.Rows) error) {
	var first, users []accountKey // of each owner the first; those that users have
	for _, key := range keys {
		if key = k.own(key); len(first) == 0 || first[len(first)-1].owner != key.owner {
			first = append(first, key)
		}
		if _, internal := k.internal(key.owner); !internal {
			users = append(users, key)
		}
	}
	ids, currencies := columns(first)
	overdrafts := make([]bool, len(ids))
	for i, id := range ids {
		overdrafts[i] = !checked(id)
	}
	b.Queue(openAccountsSQL, ids, currencies, overdrafts).Query(opened)
	if len(users) > 0 {
		owners, currencies := columns(users)
		b.Queue(openFurtherSQL, owners, currencies).Query(opened)
	}
}

// columns are the keys as two columns.
func columns(keys []accountKey) (owners, currencies []string) {
	for _, key := range keys {
		owners, currencies = append(owners, key.owner), append(currencies, key.currency)
	}
	return owners, currencies
}

// begin gives the accounts that were opened their first balance.
func (o *opening) begin(w *wanted) *unitOfWork {
	slices.Sort(o.opened)
	for _, id := range o.opened {
		a := o.work.byID[id]
		if a == nil || o.bank.opening == 0 || !w.open[a.key()] {
			continue
		}
		if _, internal := o.bank.internal(a.ID); internal {
			continue
		}
		// A refusal leaves the account empty: where money comes from is frozen.
		_ = o.work.transfer(Transfer{ID: clock.NewID(), Kind: Opening, From: o.bank.externalOf(a.Currency), To: a.ID, Amount: o.bank.opening, Currency: a.Currency})
	}
	return o.work
}

func (b *unitOfWork) read(rows pgx.Rows, locked bool) error {
	var id string
	var a Account
	_, err := pgx.ForEachRow(rows, []any{&id, &a.Currency, &a.Balance, &a.MayGoNegative, &a.Frozen}, func() error {
		a.ID = ownerOf(id)
		b.add(&account{Account: a, id: id, locked: locked})
		return nil
	})
	return err
}

func (b *unitOfWork) take(rows pgx.Rows) error {
	var id string
	var amount int64
	_, err := pgx.ForEachRow(rows, []any{&id, &amount}, func() error { return b.fold(id, amount) })
	return err
}

// queueSave queues what writes the changes. The rows that it updates are locked, and that none goes below zero was
// checked; the schema checks it again.
func (b *unitOfWork) queueSave(batch *pgx.Batch) {
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

// idOf is the id of an owner's account in a currency, which never changes; an [unknownAccount] where there is none.
func idOf(ctx context.Context, tx pgx.Tx, key accountKey) (id string, err error) {
	err = tx.QueryRow(ctx, idOfSQL, key.owner, key.currency).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", unknownAccount(key)
	}
	return id, err
}

// load opens, locks, folds and reads accounts in one round trip, together with what more holds.
func (k bank) load(ctx context.Context, tx pgx.Tx, w *wanted, more *pgx.Batch) (*unitOfWork, error) {
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
