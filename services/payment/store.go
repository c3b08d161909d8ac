package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
)

// A payment that another transaction added since it was looked for makes the insert fail: the first charge of an order
// met its cancellation. The transaction is then run again and finds the other's outcome. Rows are inserted by order id,
// so that two transactions with the same orders cannot wait for each other.
const (
	addPaymentsSQL = `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason, reason_code, reason_parameters)
SELECT order_id, id, user_id, amount, currency, status, reason, reason_code, reason_parameters
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[])
    AS attempt (order_id, id, user_id, amount, currency, status, reason, reason_code, reason_parameters)
ORDER BY order_id`

	readPaymentsSQL = `SELECT order_id, id, user_id, amount, currency, status, reason, reason_code, reason_parameters FROM payments WHERE order_id = ANY($1)`

	findPaymentSQL = `SELECT p.order_id, p.id, p.user_id, p.amount, p.currency, p.status, p.reason, p.reason_code, p.reason_parameters,
    p.created_at, r.id, r.state, r.attempts, r.last_error, r.next_try_at, r.done_at
FROM payments p LEFT JOIN refunds r ON r.order_id = p.order_id WHERE p.order_id = $1`
)

func readPayments(into map[uuid.UUID]Payment) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		known, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payment])
		for _, p := range known {
			into[p.OrderID] = p
		}
		return err
	}
}

// save writes what a batch changed, on the way to the commit.
func save(ctx context.Context, tx pgx.Tx, b *unitOfWork, added []Payment) error {
	var batch pgx.Batch
	b.queueSave(&batch)
	queuePayments(&batch, added)
	if batch.Len() == 0 {
		return nil
	}
	return pg.Defer(ctx, tx, &batch)
}

// queuePayments queues what adds payments; none add no statement.
func queuePayments(b *pgx.Batch, added []Payment) {
	n := len(added)
	if n == 0 {
		return
	}
	orders, ids := make([]uuid.UUID, n), make([]uuid.UUID, n)
	users, currencies, statuses, reasons := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	codes, parameters := make([]string, n), make([]string, n)
	amounts := make([]int64, n)
	for i, p := range added {
		orders[i], ids[i], users[i], amounts[i] = p.OrderID, p.ID, p.UserID, p.Amount
		currencies[i], statuses[i], reasons[i] = p.Currency, string(p.Status), p.Reason
		codes[i], parameters[i] = string(p.ReasonCode), encode(p.ReasonParameters)
	}
	b.Queue(addPaymentsSQL, orders, ids, users, amounts, currencies, statuses, reasons, codes, parameters)
}

// encode is the parameters as JSON.
func encode(p event.Parameters) string {
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // a map of text
	}
	return string(text)
}

// Record is a payment as it is stored.
type Record struct {
	Payment
	CreatedAt time.Time     `json:"createdAt"`
	Refund    *RefundRecord `json:"refund,omitempty" doc:"how far paying back is; none where nobody asked for it"`
}

// RefundRecord is how far a payment is paid back.
type RefundRecord struct {
	ID        uuid.UUID  `json:"refundId" doc:"the transfer's id"`
	State     string     `json:"state" enum:"WAITING,DONE" doc:"WAITING: it could not be done yet and is tried again"`
	Attempts  int        `json:"attempts"`
	LastError string     `json:"lastError,omitempty" doc:"why the last attempt that failed did"`
	NextTryAt *time.Time `json:"nextTryAt,omitempty"`
	DoneAt    *time.Time `json:"doneAt,omitempty"`
}

// findPayment returns false where the order has no payment.
func findPayment(ctx context.Context, db *pgxpool.Pool, order uuid.UUID) (Record, bool, error) {
	var p Record
	var id *uuid.UUID
	var state, lastError *string
	var attempts *int
	var nextTry, done *time.Time
	err := db.QueryRow(ctx, findPaymentSQL, order).Scan(&p.OrderID, &p.ID, &p.UserID, &p.Amount, &p.Currency, &p.Status, &p.Reason,
		&p.ReasonCode, &p.ReasonParameters, &p.CreatedAt, &id, &state, &attempts, &lastError, &nextTry, &done)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Record{}, false, nil
	case err != nil:
		return Record{}, false, fmt.Errorf("read the payment of order %s: %w", order, err)
	}
	if id != nil {
		p.Refund = &RefundRecord{*id, *state, *attempts, *lastError, nextTry, done}
	}
	return p, true, nil
}

// Posting is one entry of an account.
type Posting struct {
	TransferID   uuid.UUID `json:"transferId" doc:"of a charge, the payment's id"`
	Kind         Kind      `json:"kind" enum:"opening,deposit,transfer,charge,refund,correction"`
	Amount       int64     `json:"amount" doc:"in minor units; below zero where the account was debited" example:"-4200"`
	Counterparty string    `json:"counterparty" doc:"who the other side's account belongs to; it is in the same currency"`
	CreatedAt    time.Time `json:"createdAt"`

	n int64
}

// A balance and what is pending are read in one statement, so what is folded in between is counted once. An owner's
// first account comes first.
const (
	accountsOfSQL = `SELECT a.id, a.currency, (a.balance + coalesce((SELECT sum(amount) FROM pending WHERE account_id = a.id), 0))::bigint,
    a.overdraft, ` + frozenColumn + `, a.created_at FROM accounts a WHERE ` + ownerColumn + ` = $1 ORDER BY a.id`

	lockToFreezeSQL = `SELECT a.id FROM accounts a WHERE ` + ownerColumn + ` = $1 ORDER BY a.id FOR UPDATE`

	freezeAccountsSQL = `UPDATE accounts a SET frozen = $2 WHERE ` + ownerColumn + ` = $1`

	// One that is frozen with all is not thawed alone.
	freezeFurtherSQL = `UPDATE accounts a SET frozen = $2 WHERE a.id = $1
AND ($2 OR NOT EXISTS (SELECT FROM accounts f WHERE f.id = ` + ownerColumn + ` AND f.frozen))`

	listEntriesSQL = `SELECT transfer_id, kind, amount, counterparty, created_at, n FROM entries
WHERE account_id = $1 AND n < $2 ORDER BY n DESC LIMIT $3`
)

// accountsOf returns an owner's accounts, the first one first. They are not locked.
func accountsOf(ctx context.Context, db *pgxpool.Pool, owner string) ([]account, error) {
	rows, _ := db.Query(ctx, accountsOfSQL, owner) // the error surfaces in the collector
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a account, err error) {
		err = row.Scan(&a.id, &a.Currency, &a.Balance, &a.MayGoNegative, &a.Frozen, &a.CreatedAt)
		a.ID = ownerOf(a.id)
		return a, err
	})
	if err != nil {
		return nil, fmt.Errorf("read the accounts of %s: %w", owner, err)
	}
	return all, nil
}

// pick is the account in a currency; where none is named, the first one.
func pick(all []account, currency string) (account, bool) {
	for _, a := range all {
		if currency == "" || a.Currency == currency {
			return a, true
		}
	}
	return account{}, false
}

// findAccount returns an owner's account in a currency; where none is named, the first one.
func findAccount(ctx context.Context, db *pgxpool.Pool, owner, currency string) (Account, bool, error) {
	all, err := accountsOf(ctx, db, owner)
	a, ok := pick(all, currency)
	return a.Account, ok, err
}

// openAccount returns false where the account was there before, or where the name is that of an account in another
// currency.
func (k bank) openAccount(ctx context.Context, db *pgxpool.Pool, key accountKey) (opened bool, err error) {
	var b pgx.Batch
	queueOpen(&b, []accountKey{key}, k, func(rows pgx.Rows) error {
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		opened = opened || len(ids) > 0
		return err
	})
	if err := db.SendBatch(ctx, &b).Close(); err != nil {
		return false, fmt.Errorf("open account %s in %s: %w", key.owner, key.currency, err)
	}
	return opened, nil
}

// freezeAccounts freezes or thaws all of an owner's accounts, or the further one in a currency if one is named. It
// returns false where there is none, or where that one is to be thawed alone while all are frozen. A debit that is
// under way is waited for; none begins after it.
func freezeAccounts(ctx context.Context, db *pgxpool.Pool, owner, currency string, frozen bool) (ok bool, err error) {
	statement, which := freezeAccountsSQL, owner
	if currency != "" {
		statement, which = freezeFurtherSQL, furtherID(owner, currency)
	}
	var b pgx.Batch
	b.Queue(lockToFreezeSQL, owner)
	b.Queue(statement, which, frozen).Exec(func(tag pgconn.CommandTag) error {
		ok = tag.RowsAffected() > 0
		return nil
	})
	if err := db.SendBatch(ctx, &b).Close(); err != nil {
		return false, fmt.Errorf("freeze the accounts of %s: %w", owner, err)
	}
	return ok, nil
}

// listEntries returns up to limit entries, the newest first, that are older than one, of the account with this id.
func listEntries(ctx context.Context, db *pgxpool.Pool, id string, before int64, limit int) ([]Posting, error) {
	rows, _ := db.Query(ctx, listEntriesSQL, id, before, limit) // the error surfaces in the collector
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Posting, err error) {
		err = row.Scan(&e.TransferID, &e.Kind, &e.Amount, &e.Counterparty, &e.CreatedAt, &e.n)
		e.Counterparty = ownerOf(e.Counterparty)
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the entries of account %s: %w", id, err)
	}
	return entries, nil
}
