package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

func (c *cashier) pause(attempts int) time.Duration {
	return pause(attempts, c.retryMax, rand.Float64())
} //nolint:gosec // jitter

// retrier pays back what could not be paid back at first. Any number of instances may run: each takes what no other
// has.
type retrier struct {
	cashier *cashier
	db      *pgxpool.Pool
	relay   *outbox.Relay // nil: events wait in the outbox
	log     *slog.Logger
	every   time.Duration // between two looks
}

// Run tries what is due until ctx ends, and then returns nil. A fault is logged; what it hit is tried again.
func (r *retrier) Run(ctx context.Context) error {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = r.next(ctx); err != nil && ctx.Err() == nil {
				r.cashier.metrics.attempted(attemptError)
				r.log.WarnContext(ctx, "refund failed, trying again later", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// due is a refund whose time has come.
type due struct {
	refund
	attempts int
}

// next tries the refund that has been due for longest, if one is, and tells whether to go on. What fails by a fault of
// its own, not of the infrastructure, is put off like one that is refused, so that it does not stand before the others.
func (r *retrier) next(ctx context.Context) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var d due
	err = r.try(ctx, &d)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err == nil:
		return true, nil
	case pg.Transient(err) || d.id == uuid.Nil:
		return false, err
	}
	_, putOff := r.db.Exec(ctx, againRefundSQL, d.payment.OrderID, err.Error(), r.cashier.now().Add(r.cashier.pause(d.attempts+1)))
	return putOff == nil, errors.Join(err, putOff)
}

// try is one attempt, in one transaction, which holds the refund's row and the merchant's account.
func (r *retrier) try(ctx context.Context, d *due) error {
	var handover *outbox.Handover
	err := pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		if err := d.read(tx.QueryRow(ctx, dueRefundSQL, r.cashier.now())); err != nil {
			return err
		}
		one := []refund{d.refund}
		b, err := r.cashier.payBack(ctx, tx, one)
		if err != nil {
			return err
		}
		now := r.cashier.now()
		if d.refusal = one[0].refusal; d.refusal != nil {
			b.Queue(againRefundSQL, d.payment.OrderID, d.refusal.Reason, now.Add(r.cashier.pause(d.attempts+1)))
			return pg.Defer(ctx, tx, b)
		}
		b.Queue(doneRefundSQL, d.payment.OrderID, now)
		if handover, err = saga.Queue(b, r.relay, "payment", d.refunded()); err != nil {
			return err
		}
		return tx.SendBatch(ctx, b).Close()
	})
	handover.Done(err == nil)
	if err != nil {
		return fmt.Errorf("refund order %s: %w", d.payment.OrderID, err)
	}
	r.cashier.metrics.tried(d.refund)
	return nil
}

func (d *due) read(row pgx.Row) error {
	var cause []byte
	p := &d.payment
	err := row.Scan(&d.id, &d.attempts, &cause, &p.OrderID, &p.ID, &p.UserID, &p.Amount, &p.Currency, &p.Status, &p.Reason, &d.merchant, &d.payer)
	if err != nil {
		return err
	}
	return json.Unmarshal(cause, &d.cause)
}

// refunded is the event, caused by the message that asked for the refund, however long ago.
func (d *due) refunded() saga.Out {
	p := d.payment
	return saga.Emit(saga.Msg[event.OrderCancelRequestedV1]{Meta: d.cause}, event.PaymentRefunded,
		event.PaymentRefundedV1{OrderID: p.OrderID, PaymentID: p.ID, Amount: p.Amount, Currency: p.Currency})[0].Keyed(p.OrderID.String())
}
