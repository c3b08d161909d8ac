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

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

const (
	// Transactions that undo lock merchants' accounts in the order of their messages. They do it one after the other, so that no
	// two can wait for each other; of one merchant they could not do otherwise.
	undoLockSQL = `SELECT pg_advisory_xact_lock(7305804402557312341)`

	readForRefundSQL = `SELECT p.order_id, p.id, p.user_id, p.amount, p.currency, p.status, p.reason, r.order_id IS NOT NULL AND r.state = 'WAITING'
FROM payments p LEFT JOIN refunds r ON r.order_id = p.order_id WHERE p.order_id = $1`

	refundPaymentSQL = `UPDATE payments SET status = 'REFUNDED' WHERE order_id = $1 AND status = 'COMPLETED'`

	addRefundSQL = `INSERT INTO refunds (order_id, id, state, attempts, last_error, next_try_at, cause, created_at, done_at)
VALUES ($1, $2, $3, 1, $4, $5, $6, $7, $8)`
)

// answer is what came of undoing a payment, as it is stored under the order's key.
type answer struct {
	PaymentID uuid.UUID `json:"paymentId"`
	Amount    int64     `json:"amount,omitempty"` // paid back
	Reason    string    `json:"reason,omitempty"` // why nothing was paid: nothing is to be paid back
}

// notYet says that a payment is to be paid back and cannot be now. It is no answer: it changes.
type notYet struct {
	payment Payment
	reason  string
}

func (e *notYet) Error() string { return e.reason }

// errWaiting says that it could not be paid back earlier, and is being tried again.
var errWaiting = errors.New("the refund waits for its next attempt")

// refund undoes the payment of an order, whatever has become of it: what was paid is paid back, what failed has failed, and of an
// order that is not known yet it leaves the mark that refuses its charge. A repeat gets the stored answer. What cannot be paid
// back yet is stored as a refund that waits, for the retrier, and is told of once.
func (c *cashier) refund(ctx context.Context, tx pgx.Tx, m saga.Msg[event.OrderCancelRequestedV1]) ([]saga.Out, error) {
	order := m.Data.OrderID
	var lock pgx.Batch
	lock.Queue(undoLockSQL)
	if err := pg.Defer(ctx, tx, &lock); err != nil {
		return nil, fmt.Errorf("lock the refunds: %w", err)
	}
	result, err := c.keys.Do(ctx, tx, refundKey(order), func(ctx context.Context, tx pgx.Tx) (idempotency.Result, error) {
		a, err := c.undo(ctx, tx, m)
		if err != nil {
			return idempotency.Result{}, err
		}
		body, err := json.Marshal(a)
		return idempotency.Result{Body: body}, err
	})
	if errors.Is(err, errWaiting) {
		return nil, nil
	}
	if later, ok := errors.AsType[*notYet](err); ok {
		return c.postpone(ctx, tx, m, later)
	}
	if err != nil {
		return nil, fmt.Errorf("refund order %s: %w", order, err)
	}
	var a answer
	if err := json.Unmarshal(result.Body, &a); err != nil {
		return nil, fmt.Errorf("read the answer to the refund of order %s: %w", order, err)
	}
	if a.Reason != "" {
		return saga.Emit(m, event.PaymentFailed, event.PaymentFailedV1{OrderID: order, Error: a.Reason}), nil
	}
	return saga.Emit(m, event.PaymentRefunded, event.PaymentRefundedV1{OrderID: order, PaymentID: a.PaymentID, Amount: a.Amount}), nil
}

// refundKey is what the answer to an order's cancellation is stored under.
func refundKey(order uuid.UUID) idempotency.Key {
	return idempotency.Key{Scope: "refund", Key: "order-" + order.String(), Fingerprint: idempotency.Fingerprint(order[:])}
}

// undo does it, in a transaction that is rolled back when it fails.
func (c *cashier) undo(ctx context.Context, tx pgx.Tx, m saga.Msg[event.OrderCancelRequestedV1]) (answer, error) {
	p, waits, err := readForRefund(ctx, tx, m.Data.OrderID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		p = Payment{OrderID: m.Data.OrderID, ID: clock.NewID()}.failed("the order was cancelled: " + m.Data.Reason)
		var b pgx.Batch
		queuePayments(&b, []Payment{p})
		if err := tx.SendBatch(ctx, &b).Close(); err != nil {
			return answer{}, fmt.Errorf("mark as cancelled: %w", err)
		}
		return answer{PaymentID: p.ID, Reason: p.Reason}, nil
	case err != nil:
		return answer{}, fmt.Errorf("read the payment: %w", err)
	case p.Status == Failed:
		return answer{PaymentID: p.ID, Reason: p.Reason}, nil
	case p.Status == Refunded:
		return answer{PaymentID: p.ID, Amount: p.Amount}, nil
	case waits:
		return answer{}, errWaiting
	}
	id := clock.NewID()
	b, refusal, err := c.payBack(ctx, tx, p, id)
	if err != nil {
		return answer{}, err
	}
	if refusal != nil {
		return answer{}, &notYet{p, refusal.Reason}
	}
	cause, err := json.Marshal(m.Meta)
	if err != nil {
		return answer{}, err
	}
	now := c.now()
	b.Queue(addRefundSQL, p.OrderID, id, "DONE", "", nil, cause, now, now)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return answer{}, fmt.Errorf("pay back: %w", err)
	}
	saga.AfterCommit(ctx, func() { c.metrics.attempted(attemptRefunded) })
	return answer{PaymentID: p.ID, Amount: p.Amount}, nil
}

func readForRefund(ctx context.Context, tx pgx.Tx, order uuid.UUID) (p Payment, waits bool, err error) {
	err = tx.QueryRow(ctx, readForRefundSQL, order).Scan(&p.OrderID, &p.ID, &p.UserID, &p.Amount, &p.Currency, &p.Status, &p.Reason, &waits)
	return p, waits, err
}

// payBack moves a payment from the merchant to who paid, and returns the statements that write it, or why it cannot be done now:
// then the statements write what was pending, and nothing else.
func (c *cashier) payBack(ctx context.Context, tx pgx.Tx, p Payment, id uuid.UUID) (*pgx.Batch, *Refusal, error) {
	w := newWanted()
	merchant := c.bank.merchantOf(p.Currency)
	w.open[merchant], w.debit[merchant] = p.Currency, true
	w.open[p.UserID], w.other[p.UserID] = p.Currency, true
	b, err := c.bank.load(ctx, tx, w, nil)
	if err != nil {
		return nil, nil, err
	}
	refusal := b.transfer(Transfer{ID: id, Kind: Refund, From: merchant, To: p.UserID, Amount: p.Amount, Currency: p.Currency})
	var batch pgx.Batch
	b.queueSave(&batch)
	if refusal == nil {
		batch.Queue(refundPaymentSQL, p.OrderID).Exec(func(tag pgconn.CommandTag) error {
			if tag.RowsAffected() != 1 {
				return fmt.Errorf("payment %s is not to be paid back any more", p.ID)
			}
			return nil
		})
	}
	return &batch, refusal, nil
}

// postpone stores a refund that could not be made, for the retrier, and tells of it.
func (c *cashier) postpone(ctx context.Context, tx pgx.Tx, m saga.Msg[event.OrderCancelRequestedV1], why *notYet) ([]saga.Out, error) {
	cause, err := json.Marshal(m.Meta)
	if err != nil {
		return nil, err
	}
	now := c.now()
	_, err = tx.Exec(ctx, addRefundSQL, m.Data.OrderID, clock.NewID(), "WAITING", why.reason, now.Add(c.pause(1)), cause, now, nil)
	if err != nil {
		return nil, fmt.Errorf("store the refund of order %s for later: %w", m.Data.OrderID, err)
	}
	saga.AfterCommit(ctx, func() { c.metrics.attempted(attemptRefused) })
	return saga.Emit(m, event.PaymentRefundFailed, event.PaymentRefundFailedV1{OrderID: m.Data.OrderID, Error: why.reason}), nil
}

// firstPause is between the first and the second attempt to pay back.
const firstPause = time.Second

// pause is how long to wait after so many attempts: from one second, doubling up to a limit, and up to half of it less at random,
// so that what failed together is not tried again together.
func pause(attempts int, most time.Duration, random float64) time.Duration {
	d := min(most, firstPause<<min(attempts-1, 20))
	return d - time.Duration(random*float64(d/2))
}
