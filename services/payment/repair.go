package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// repairer charges, pays back and counts anew for who has found out that it should be so, where the saga did not get that far or
// was undone. What the ledger says decides: money that was moved is not moved again.
//
// Its transactions take the lock of those that undo and then the refund's row, as the retrier does, and accounts after that. A
// payment that is there can then change by nobody else.
type repairer struct {
	cashier *cashier
	db      *pgxpool.Pool
	relay   *outbox.Relay // nil: events wait in the outbox
}

// stored is what is known of an order's payment.
type stored struct {
	Payment
	status    string // to others; NONE where there is none
	refund    uuid.UUID
	charged   int64 // by the ledger: of the payment's own transfer
	returned  int64 // of its refund's
	hasRefund bool
}

const (
	lockRefundSQL = `SELECT id, state FROM refunds WHERE order_id = $1 FOR UPDATE`

	// movedSQL finds a transfer's entries by the accounts that it can be between, for transfers are in no index.
	// An entry that was taken back since moved nothing.
	movedSQL = `SELECT coalesce(abs(sum(amount) FILTER (WHERE transfer_id = $1)), 0)::bigint, coalesce(abs(sum(amount) FILTER (WHERE transfer_id = $2)), 0)::bigint
FROM entries WHERE account_id = ANY($3) AND transfer_id IN ($1, $2)`
)

// find locks what is known of an order's payment, and looks into the ledger for it.
func (r *repairer) find(ctx context.Context, tx pgx.Tx, order uuid.UUID) (s stored, err error) {
	var lock pgx.Batch
	lock.Queue(undoLockSQL)
	if err := pg.Defer(ctx, tx, &lock); err != nil {
		return s, err
	}
	s.status = facts.None
	var state string
	switch err := tx.QueryRow(ctx, lockRefundSQL, order).Scan(&s.refund, &state); {
	case err == nil:
		s.hasRefund = true
	case !errors.Is(err, pgx.ErrNoRows):
		return s, err
	}
	s.Payment, _, err = readForRefund(ctx, tx, order)
	if errors.Is(err, pgx.ErrNoRows) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if s.status = string(s.Status); state == "WAITING" {
		s.status = refunding
	}
	sides := []string{s.UserID, r.cashier.bank.externalOf(s.Currency)} // the latter of what was paid before there were accounts
	err = tx.QueryRow(ctx, movedSQL, s.ID, s.refund, sides).Scan(&s.charged, &s.returned)
	return s, err
}

// command runs do in a transaction, unless the payment's status is what is wanted already or not what was seen, and returns the payment as it
// is then. What do returns is told.
func (r *repairer) command(ctx context.Context, order uuid.UUID, seen string, there func(stored) bool,
	do func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error),
) (f facts.Fact, changed string, err error) {
	var handover *outbox.Handover
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		s, err := r.find(ctx, tx, order)
		if err != nil {
			return err
		}
		switch {
		case there(s):
			f, err = factOf(ctx, tx, order)
			return err
		case s.status != seen:
			changed = s.status
			return nil
		}
		var b pgx.Batch
		outs, err := do(tx, s, &b)
		if err != nil {
			return err
		}
		if handover, err = saga.Queue(&b, r.relay, "payment", outs...); err != nil {
			return err
		}
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
		f, err = factOf(ctx, tx, order)
		return err
	})
	handover.Done(err == nil)
	if refused, ok := errors.AsType[*refusedError](err); ok {
		return facts.Fact{}, "", refused
	}
	if err != nil {
		return facts.Fact{}, "", fmt.Errorf("repair the payment of order %s: %w", order, err)
	}
	return f, changed, nil
}

// refusedError rolls back what a command was about to do.
type refusedError struct{ Refusal }

func (e *refusedError) Error() string { return e.Reason }

func factOf(ctx context.Context, tx pgx.Tx, order uuid.UUID) (facts.Fact, error) {
	rows, _ := tx.Query(ctx, source.GetSQL(), []uuid.UUID{order}) // the error surfaces in the collector
	return pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[facts.Fact])
}

const (
	dropRefundSQL = `DELETE FROM refunds WHERE order_id = $1`

	setStatusSQL = `UPDATE payments SET status = $2, reason = $3 WHERE order_id = $1`

	repayPaymentSQL = `UPDATE payments SET id = $2, user_id = $3, amount = $4, currency = $5, status = 'COMPLETED', reason = '', created_at = now() WHERE order_id = $1`

	upsertRefundSQL = addRefundSQL + ` ON CONFLICT (order_id) DO UPDATE SET id = excluded.id, state = excluded.state, attempts = excluded.attempts, last_error = excluded.last_error,
    next_try_at = excluded.next_try_at, cause = excluded.cause, created_at = excluded.created_at, done_at = excluded.done_at`
)

// charge charges for an order that should be paid, by the rules of any charge. If the ledger has the charge already, the status is put right.
func (r *repairer) charge(ctx context.Context, seen string, e event.InventoryReservedV1) (facts.Fact, string, error) {
	there := func(s stored) bool { return s.Status == Completed }
	return r.command(ctx, e.OrderID, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
		if s.hasRefund {
			b.Queue(dropRefundSQL, e.OrderID)
		}
		r.cashier.keys.Forget(b, refundKey(e.OrderID)) // so that a later cancellation pays back again
		if s.status != facts.None && s.charged == s.Amount && s.charged > 0 && s.returned == 0 {
			b.Queue(setStatusSQL, e.OrderID, string(Completed), "")
			return completed(ctx, s.Payment), nil
		}
		books, err := r.cashier.bank.load(ctx, tx, r.cashier.wantedBy(e), nil)
		if err != nil {
			return nil, err
		}
		p, refusal := r.cashier.charge(books, clock.NewID(), e)
		if refusal != nil {
			return nil, &refusedError{*refusal}
		}
		books.queueSave(b)
		if s.status == facts.None {
			queuePayments(b, []Payment{p})
		} else {
			b.Queue(repayPaymentSQL, p.OrderID, p.ID, p.UserID, p.Amount, p.Currency)
		}
		return completed(ctx, p), nil
	})
}

func completed(ctx context.Context, p Payment) []saga.Out {
	return []saga.Out{saga.New(ctx, event.PaymentCompleted, p.OrderID.String(), event.PaymentCompletedV1{OrderID: p.OrderID, PaymentID: p.ID, Amount: p.Amount})}
}

// refund pays back what an order should not have paid, by the rows and not by the answer that may be stored under the order's key. If the ledger
// has the refund already, the status is put right. What cannot be paid back now waits, as in the saga. Of an orphan, which order does not know, nobody
// is told.
func (r *repairer) refund(ctx context.Context, order uuid.UUID, seen string, orphan bool) (facts.Fact, string, error) {
	there := func(s stored) bool { return s.status != facts.None && s.status != string(Completed) }
	return r.command(ctx, order, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
		if s.status == facts.None {
			return nil, &refusedError{Refusal{noPayment, "there is nothing to pay back: the order has no payment"}}
		}
		key := order.String()
		back := []saga.Out{saga.New(ctx, event.PaymentRefunded, key, event.PaymentRefundedV1{OrderID: order, PaymentID: s.ID, Amount: s.Amount})}
		if orphan {
			back = nil
		}
		if s.hasRefund && s.returned == s.Amount {
			b.Queue(setStatusSQL, order, string(Refunded), "")
			return back, nil
		}
		id, now := clock.NewID(), r.cashier.now()
		cause, err := json.Marshal(saga.Meta{ID: id, Key: key, Topic: event.OrderCancelRequested.Name(), Time: now, CorrelationID: id})
		if err != nil {
			return nil, err
		}
		moves, refusal, err := r.cashier.payBack(ctx, tx, s.Payment, id)
		if err != nil {
			return nil, err
		}
		b.QueuedQueries = append(b.QueuedQueries, moves.QueuedQueries...)
		if refusal != nil {
			b.Queue(upsertRefundSQL, order, id, "WAITING", refusal.Reason, now.Add(r.cashier.pause(1)), cause, now, nil)
			if orphan {
				return nil, nil
			}
			return []saga.Out{saga.New(ctx, event.PaymentRefundFailed, key, event.PaymentRefundFailedV1{OrderID: order, Error: refusal.Reason})}, nil
		}
		b.Queue(upsertRefundSQL, order, id, "DONE", "", nil, cause, now, now)
		return back, nil
	})
}

// recount makes a payment's status what the ledger says.
func (r *repairer) recount(ctx context.Context, order uuid.UUID) (facts.Fact, error) {
	var is Status
	var reason string
	there := func(s stored) bool {
		is, reason = "", ""
		switch {
		case s.charged == s.Amount && s.charged > 0 && s.returned == 0:
			is = Completed
		case s.charged == s.Amount && s.charged > 0 && s.returned == s.Amount:
			is = Refunded
		case s.charged == 0 && s.returned == 0:
			is, reason = Failed, "no charge in the ledger"
		}
		return s.status != facts.None && is == s.Status
	}
	for seen := ""; ; {
		f, changed, err := r.command(ctx, order, seen, there, func(_ pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
			if s.status == facts.None {
				return nil, &refusedError{Refusal{noPayment, "the order has no payment"}}
			}
			if is == "" {
				return nil, &refusedError{Refusal{unclear, fmt.Sprintf("of %d, %d were charged and %d paid back", s.Amount, s.charged, s.returned)}}
			}
			if s.hasRefund && (is == Failed || is == Completed && s.status != refunding) {
				b.Queue(dropRefundSQL, order)
			}
			b.Queue(setStatusSQL, order, string(is), reason)
			return nil, nil
		})
		if changed == "" || err != nil {
			return f, err
		}
		seen = changed // whatever it is
	}
}
