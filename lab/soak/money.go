package soak

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// opening is what each user's account opens with: nobody runs out of it.
const opening = 1_000_000_000_000

// ledger is payment's accounts, and what their entries say.
type ledger struct {
	balances map[string]int64 // what is pending included
	entries  map[string]int64 // sums, by account
	moved    map[uuid.UUID]movement
}

// movement is the entries of one transfer.
type movement struct {
	kind     string
	entries  int
	sum      int64
	from, to string
	amount   int64
}

const (
	balancesSQL = `SELECT id, (balance + coalesce((SELECT sum(amount) FROM pending WHERE account_id = a.id), 0))::bigint FROM accounts a`

	movementsSQL = `SELECT transfer_id, kind, count(*)::int, sum(amount)::bigint,
    coalesce(min(account_id) FILTER (WHERE amount < 0), ''), coalesce(min(account_id) FILTER (WHERE amount > 0), ''),
    coalesce(sum(amount) FILTER (WHERE amount > 0), 0)::bigint FROM entries GROUP BY transfer_id, kind`

	entrySumsSQL = `SELECT account_id, sum(amount)::bigint FROM entries GROUP BY account_id`
)

// read reads it. Nothing moves any more, so the statements agree.
func (l *ledger) read(ctx context.Context, db *pgxpool.Pool) error {
	l.balances, l.entries, l.moved = map[string]int64{}, map[string]int64{}, map[uuid.UUID]movement{}
	var account string
	var amount int64
	for sql, into := range map[string]map[string]int64{balancesSQL: l.balances, entrySumsSQL: l.entries} {
		rows, _ := db.Query(ctx, sql) // the error surfaces in the reader
		if _, err := pgx.ForEachRow(rows, []any{&account, &amount}, func() error { into[account] = amount; return nil }); err != nil {
			return fmt.Errorf("read accounts: %w", err)
		}
	}
	rows, _ := db.Query(ctx, movementsSQL) // the error surfaces in the reader
	var id uuid.UUID
	var m movement
	_, err := pgx.ForEachRow(rows, []any{&id, &m.kind, &m.entries, &m.sum, &m.from, &m.to, &m.amount}, func() error {
		l.moved[id] = m
		return nil
	})
	if err != nil {
		return fmt.Errorf("read entries: %w", err)
	}
	return nil
}

// checkMoney holds the ledger against itself and against the payments: money is moved for a payment that stands, once,
// and for nothing else, and none is made or lost.
func (f *facts) checkMoney(v *verdict) {
	charged := map[uuid.UUID]bool{}
	var paid int64
	for id, p := range f.payments {
		m, moved := f.ledger.moved[p.ID]
		charged[p.ID] = true
		switch {
		case p.Status == "FAILED" && moved:
			v.order(id, "a failed payment moved money")
		case p.Status == "FAILED":
		case !moved:
			v.order(id, "a payment moved no money")
		case m.kind != "charge" || m.from != p.User || m.to != "merchant."+p.Currency || m.amount != p.Amount:
			v.order(id, "a payment moved other money than it says")
		}
		if p.Status == "COMPLETED" {
			paid += p.Amount
		}
	}
	for id, m := range f.ledger.moved {
		v.that(m.entries == 2 && m.sum == 0, "a transfer is not two entries that sum to zero", "%s %s: %d entries, sum %d", m.kind, id, m.entries, m.sum)
		v.that(m.kind != "charge" || charged[id], "money was moved for no payment", "%s from %s to %s: %d", id, m.from, m.to, m.amount)
	}
	var all, merchants int64
	for account, balance := range f.ledger.balances {
		all += balance
		if account == "merchant.EUR" {
			merchants = balance
		}
		v.that(balance == f.ledger.entries[account], "an account does not hold the sum of its entries", "%s: %d, entries %d", account, balance, f.ledger.entries[account])
		v.that(balance >= 0 || account == "external.EUR", "an account is below zero", "%s: %d", account, balance)
	}
	v.that(all == 0, "money was made or lost", "all accounts sum to %d", all)
	v.that(merchants == paid, "the merchant does not hold what was paid", "%d, completed payments are %d", merchants, paid)
}
