package payment

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
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

// answer is what came of undoing a payment, as it is stored under the order's key.
type answer struct {
	PaymentID uuid.UUID `json:"paymentId"`
	Amount    int64     `json:"amount,omitempty"`   // paid back
	Currency  string    `json:"currency,omitempty"` // empty in answers of the previous version
	Reason    string    `json:"reason,omitempty"`   // why nothing was paid: nothing is to be paid back

	ReasonCode       event.Code       `json:"reasonCode,omitempty"`
	ReasonParameters event.Parameters `json:"reasonParameters,omitempty"`
}

// refundAll undoes the payments of orders, whatever has become of each: what was paid is paid back, what failed has
// failed, and of an order that is not known yet it leaves the mark that refuses its charge; one whose payment's row is
// lost is known to the ledger. A repeat gets the stored answer. What cannot be paid back yet is stored as a refund that
// waits, for the retrier, and is told of once.
func (c *cashier) refundAll(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.OrderCancelRequestedV1]) ([]saga.Out, error) {
	var lock pgx.Batch
	lock.Queue(undoLockSQL)
	if err := pg.Defer(ctx, tx, &lock); err != nil {
		return nil, fmt.Errorf("lock the refunds: %w", err)
	}
	var asked []saga.Msg[event.OrderCancelRequestedV1] // the first for each order
	var keys []idempotency.Key
	place := map[uuid.UUID]int{}
	for _, m := range msgs {
		if _, again := place[m.Data.OrderID]; !again {
			place[m.Data.OrderID] = len(asked)
			asked, keys = append(asked, m), append(keys, refundKey(m.Data.OrderID))
		}
	}
	var later map[uuid.UUID]*Refusal
	answers, err := c.keys.DoAll(ctx, tx, keys, func(fresh []int) (results []*idempotency.Result, err error) {
		some := make([]saga.Msg[event.OrderCancelRequestedV1], len(fresh))
		for n, i := range fresh {
			some[n] = asked[i]
		}
		results, later, err = c.undo(ctx, tx, some)
		return results, err
	})
	if err != nil {
		return nil, fmt.Errorf("refund %d orders: %w", len(asked), err)
	}
	var outs []saga.Out
	for _, m := range msgs {
		order := m.Data.OrderID
		stored, refusal := answers[place[order]], later[order]
		switch {
		case stored != nil:
			var a answer
			if err := json.Unmarshal(stored.Body, &a); err != nil {
				return nil, fmt.Errorf("read the answer to the refund of order %s: %w", order, err)
			}
			outs = append(outs, a.event(m)...)
		case refusal != nil:
			outs = append(outs, saga.Emit(m, event.PaymentRefundFailed, event.PaymentRefundFailedV1{OrderID: order, Error: refusal.Reason, Code: refusal.code()})...)
			delete(later, order)
		}
	}
	return outs, nil
}

func (a answer) event(m saga.Msg[event.OrderCancelRequestedV1]) []saga.Out {
	if a.Reason != "" {
		return saga.Emit(m, event.PaymentFailed, event.PaymentFailedV1{
			OrderID: m.Data.OrderID, Error: a.Reason, Code: a.ReasonCode, Parameters: a.ReasonParameters,
		})
	}
	return saga.Emit(m, event.PaymentRefunded, event.PaymentRefundedV1{OrderID: m.Data.OrderID, PaymentID: a.PaymentID, Amount: a.Amount, Currency: a.Currency})
}

// refundKey is what the answer to an order's cancellation is stored under.
func refundKey(order uuid.UUID) idempotency.Key {
	return idempotency.Key{Scope: "refund", Key: "order-" + order.String(), Fingerprint: idempotency.Fingerprint(order[:])}
}

// undo does it for orders that have no answer yet, each of which is there once. It returns an answer for each, or none
// where a refund waits for its next attempt, and why those wait that it was the first attempt for.
func (c *cashier) undo(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.OrderCancelRequestedV1]) (results []*idempotency.Result, later map[uuid.UUID]*Refusal, err error) {
	orders := make([]uuid.UUID, len(msgs))
	for i, m := range msgs {
		orders[i] = m.Data.OrderID
	}
	stored, traces, err := readForRefund(ctx, tx, traceOfLostSQL, orders...)
	if err != nil {
		return nil, nil, err
	}
	var restored []lost
	for order, t := range traces {
		l, ok := t.restore()
		if !ok {
			return nil, nil, saga.Blame(msgs[slices.Index(orders, order)].Meta, unclearLoss(order, t))
		}
		stored[order], restored = refundable{Payment: l.Payment, Merchant: l.merchant}, append(restored, l)
	}
	due := make([]refund, 0, len(msgs))
	for _, m := range msgs {
		if p, ok := stored[m.Data.OrderID]; ok && p.Status == Completed && !p.Waits {
			due = append(due, p.refund(m.Meta))
		}
	}
	moves, err := c.payBack(ctx, tx, due)
	if err != nil {
		return nil, nil, err
	}
	b := &pgx.Batch{}
	if err := c.queueLost(b, restored, msgs[0].Meta); err != nil {
		return nil, nil, err
	}
	b.QueuedQueries = append(b.QueuedQueries, moves.QueuedQueries...)
	later = map[uuid.UUID]*Refusal{}
	for _, r := range due {
		if r.refusal != nil {
			later[r.payment.OrderID] = r.refusal
		}
	}
	results = make([]*idempotency.Result, len(msgs))
	var marks []Payment
	for i, m := range msgs {
		p, ok := stored[m.Data.OrderID]
		a := answer{PaymentID: p.ID, Amount: p.Amount, Currency: p.Currency}
		switch {
		case !ok:
			mark := Payment{OrderID: m.Data.OrderID, ID: clock.NewID()}.failed("the order was cancelled: "+m.Data.Reason).because(event.CodeOrderCancelled, nil)
			marks = append(marks, mark)
			a = answer{PaymentID: mark.ID, Reason: mark.Reason, ReasonCode: mark.ReasonCode}
		case p.Status == Failed:
			a = answer{PaymentID: p.ID, Reason: p.Reason, ReasonCode: p.ReasonCode, ReasonParameters: p.ReasonParameters}
		case p.Waits, later[p.OrderID] != nil:
			continue
		}
		body, err := json.Marshal(a)
		if err != nil {
			return nil, nil, err
		}
		results[i] = &idempotency.Result{Body: body}
	}
	queuePayments(b, marks)
	if err := c.queueRefunds(b, addRefundsSQL, due); err != nil {
		return nil, nil, err
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, fmt.Errorf("pay back %d orders: %w", len(due), err)
	}
	saga.AfterCommit(ctx, func() { c.metrics.tried(due...) })
	return results, later, nil
}

// refundable is a payment, whether its refund waits for its next attempt, and by the ledger who got the money from
// whom; empty where it does not say.
type refundable struct {
	Payment
	Waits           bool
	Merchant, Payer string
}

// refund is the first attempt to pay it back.
func (p refundable) refund(cause saga.Meta) refund {
	return refund{id: clock.NewID(), payment: p.Payment, cause: cause, merchant: p.Merchant, payer: p.Payer}
}

// readForRefund reads what there is of these orders' payments, and, by [traceSQL] or [traceOfLostSQL], what the ledger
// holds of them.
func readForRefund(ctx context.Context, tx pgx.Tx, sql string, orders ...uuid.UUID) (map[uuid.UUID]refundable, map[uuid.UUID]trace, error) {
	stored, traces := make(map[uuid.UUID]refundable, len(orders)), map[uuid.UUID]trace{}
	var b pgx.Batch
	b.Queue(readForRefundSQL, orders).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[refundable])
		for _, p := range found {
			stored[p.OrderID] = p
		}
		return err
	})
	b.Queue(sql, orders).Query(readTraces(traces))
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, nil, fmt.Errorf("read %d payments: %w", len(orders), err)
	}
	return stored, traces, nil
}

// refund is an attempt to pay back.
type refund struct {
	id      uuid.UUID // of the transfer
	payment Payment
	cause   saga.Meta // of the message that asked for it
	refusal *Refusal  // why it cannot be made now

	merchant, payer string // by the ledger, the accounts of the charge; empty where it does not say
}

// transfer is the charge's way back: from the account that it credited, be the merchant called otherwise by now, to the
// one that it debited. Where the ledger does not say them, as of what was paid before there were accounts, it is from
// today's merchant and to the payment's user.
func (r refund) transfer(k bank) Transfer {
	p := r.payment
	t := Transfer{ID: r.id, Kind: Refund, From: cmp.Or(r.merchant, k.merchantOf(p.Currency)), To: p.UserID, Amount: p.Amount, Currency: p.Currency, Order: p.OrderID}
	if r.payer != "" && checked(r.payer) {
		t.To = ownerOf(r.payer)
	}
	return t
}

// payBack moves payments from the merchant to who paid, one after the other, and says of each that cannot be made now
// why. What cost nothing is paid back without a transfer. It returns the statements that write that. They must run
// before the commit, not with it: a payment that is not to be paid back must keep it from happening.
func (c *cashier) payBack(ctx context.Context, tx pgx.Tx, refunds []refund) (*pgx.Batch, error) {
	var batch pgx.Batch
	if len(refunds) == 0 {
		return &batch, nil
	}
	w := newWanted()
	for _, r := range refunds {
		if r.payment.Amount == 0 {
			continue
		}
		t := r.transfer(c.bank)
		from, to := accountKey{t.From, t.Currency}, accountKey{t.To, t.Currency}
		w.open[from], w.debit[from], w.other[to] = true, true, true
		if c.bank.own(from) == from { // what is refused for its currency opens nothing
			w.open[to] = true
		}
	}
	b := newUnitOfWork()
	if len(w.debit) > 0 {
		var err error
		if b, err = c.bank.load(ctx, tx, w, nil); err != nil {
			return nil, err
		}
	}
	var paid []uuid.UUID
	for i, r := range refunds {
		if r.payment.Amount != 0 {
			refunds[i].refusal = b.transfer(r.transfer(c.bank))
		}
		if refunds[i].refusal == nil {
			paid = append(paid, r.payment.OrderID)
		}
	}
	b.queueSave(&batch)
	if len(paid) > 0 {
		batch.Queue(refundPaymentsSQL, paid).Exec(func(tag pgconn.CommandTag) error {
			if n := tag.RowsAffected(); n != int64(len(paid)) {
				return fmt.Errorf("%d of %d payments, the first of order %s, are not to be paid back any more", int64(len(paid))-n, len(paid), paid[0])
			}
			return nil
		})
	}
	return &batch, nil
}

// queueRefunds queues what stores first attempts: those that were refused wait for the retrier.
func (c *cashier) queueRefunds(b *pgx.Batch, sql string, refunds []refund) error {
	n := len(refunds)
	if n == 0 {
		return nil
	}
	orders, ids := make([]uuid.UUID, n), make([]uuid.UUID, n)
	states, reasons, causes := make([]string, n), make([]string, n), make([]string, n)
	next := make([]*time.Time, n)
	now := c.now()
	for i, r := range refunds {
		cause, err := json.Marshal(r.cause)
		if err != nil {
			return err
		}
		orders[i], ids[i], causes[i], states[i] = r.payment.OrderID, r.id, string(cause), "DONE"
		if r.refusal != nil {
			again := now.Add(c.pause(1))
			states[i], reasons[i], next[i] = "WAITING", r.refusal.Reason, &again
		}
	}
	b.Queue(sql, orders, ids, states, reasons, next, causes, now)
	return nil
}

// firstPause is between the first and the second attempt to pay back.
const firstPause = time.Second

// pause is how long to wait after so many attempts: from one second, doubling up to a limit, and up to half of it less
// at random, so that what failed together is not tried again together.
func pause(attempts int, most time.Duration, random float64) time.Duration {
	d := min(most, firstPause<<min(attempts-1, 20))
	return d - time.Duration(random*float64(d/2))
}
