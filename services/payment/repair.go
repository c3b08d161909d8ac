package payment

import (
	"cmp"
	"context"
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

// repairer charges, pays back and counts anew for who has found out that it should be so, where the saga did not get
// that far or was undone. What the ledger says decides: money that was moved is not moved again.
//
// Its transactions take the lock of those that undo and then the refund's row, as the retrier does, and accounts after
// that. A payment that is there can then change by nobody else.
type repairer struct {
	cashier *cashier
	db      *pgxpool.Pool
	relay   *outbox.Relay // nil: events wait in the outbox
}

// stored is what is known of an order's payment.
type stored struct {
	Payment
	status   string // to others; NONE where there is none
	refund   uuid.UUID
	state    string // of the refund; empty where there is none
	charged  int64  // by the ledger: of the payment's own transfer
	returned int64  // of its refund's
	traced   int64  // by the ledger, of the order's other transfers
	stray    bool   // the ledger holds more of the order: of other transfers, or of a payment that is lost and that it does not say
	alien    bool   // what was charged is another order's, by the ledger

	refundable refundable
	trace      trace // all that the ledger holds of the order
}

// refundStates are those of the refund, if there is one, of a payment that is not FAILED.
var refundStates = map[Status]string{Completed: "WAITING", Refunded: "DONE"}

// ledger is the payment's status by what was moved; empty where only a person can say. Nothing was charged for a
// payment that is not there.
func (s stored) ledger() Status {
	switch {
	case s.stray, s.alien:
	case s.charged == 0 && s.returned == 0 && s.Amount == 0 && s.Status != "":
		return s.Status // of a payment of nothing the ledger knows nothing
	case s.charged == 0 && s.returned == 0:
		return Failed
	case s.charged == s.Amount && s.returned == 0:
		return Completed
	case s.charged == s.Amount && s.returned == s.Amount:
		return Refunded
	}
	return ""
}

// unclear refuses what cannot be decided here, and names the command for a person.
func (s stored) unclear(order uuid.UUID) error {
	what := fmt.Sprintf("of %d, %d were charged and %d paid back", s.Amount, s.charged, s.returned)
	if s.alien {
		what = fmt.Sprintf("what its payment, %s, says was charged was charged for another order, by the ledger", s.status)
	} else if s.stray {
		what = fmt.Sprintf("the ledger holds %d of the order that its payment, %s, does not tell of", s.traced, s.status)
	}
	return &refusedError{Refusal{unclear, fmt.Sprintf("%s: only a person can say what is right, with POST /payments/%s/decide", what, order)}}
}

// find locks what is known of an order's payment, and looks into the ledger for it: a payment whose row is lost is
// restored from there.
func (r *repairer) find(ctx context.Context, tx pgx.Tx, order uuid.UUID) (s stored, err error) {
	var lock pgx.Batch
	lock.Queue(undoLockSQL)
	if err := pg.Defer(ctx, tx, &lock); err != nil {
		return s, err
	}
	s.status = facts.None
	if err := tx.QueryRow(ctx, lockRefundSQL, order).Scan(&s.refund, &s.state); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return s, err
	}
	payments, traces, err := readForRefund(ctx, tx, traceSQL, order)
	if err != nil {
		return s, err
	}
	s.trace = traces[order]
	p, there := payments[order]
	if t := traces[order]; !there && len(t) > 0 {
		l, ok := t.restore()
		if ok {
			other, err := shared(ctx, tx, order, t)
			if err != nil {
				return s, err
			}
			ok = !other
		}
		if !ok {
			s.stray, s.traced = true, t.paid()
			return s, nil
		}
		if err := r.restore(ctx, tx, l); err != nil {
			return s, err
		}
		there, p = true, refundable{Payment: l.Payment, Merchant: l.merchant}
		if s.refund = l.refund; l.refund != uuid.Nil {
			s.state = "DONE"
		}
	}
	if !there {
		return s, nil
	}
	s.Payment, s.refundable = p.Payment, p
	s.traced = traces[order].paid(s.ID, s.refund)
	s.stray = s.traced != 0
	if s.alien, err = alien(ctx, tx, s); err != nil {
		return s, err
	}
	if s.status = string(s.Status); s.state == "WAITING" {
		s.status = refunding
	}
	// The user's side is in few entries, and mostly enough. The merchant's is in all of its, and shows what was paid
	// before there were accounts, too, and whatever has lost its other half.
	payer := []string{p.Payer}
	if p.Payer == "" {
		payer = []string{s.UserID, furtherID(s.UserID, s.Currency)} // of the two, the charge was from one
	}
	for _, accounts := range [][]string{payer, {cmp.Or(p.Merchant, r.cashier.bank.merchantOf(s.Currency))}} {
		var charged, returned int64
		if err := tx.QueryRow(ctx, movedSQL, s.ID, s.refund, accounts).Scan(&charged, &returned); err != nil {
			return s, err
		}
		s.charged, s.returned = max(s.charged, charged), max(s.returned, returned)
		if s.charged != 0 && (s.state == "" || s.returned != 0) {
			break
		}
	}
	return s, nil
}

// restore stores a payment that the ledger knows of and whose row is lost.
func (r *repairer) restore(ctx context.Context, tx pgx.Tx, l lost) error {
	var b pgx.Batch
	if err := r.cashier.queueLost(&b, []lost{l}, r.cause(l.OrderID)); err != nil {
		return err
	}
	return tx.SendBatch(ctx, &b).Close()
}

// cause stands for the message that asked for what a command does.
func (r *repairer) cause(order uuid.UUID) saga.Meta {
	id := clock.NewID()
	return saga.Meta{ID: id, Key: order.String(), Topic: event.OrderCancelRequested.Name(), Time: r.cashier.now(), CorrelationID: id}
}

// command runs do in a transaction, unless the payment's status is what is wanted already or not what was seen, and
// returns the payment as it is then. What do returns is told. A payment that the saga adds while do adds one is looked
// at instead.
func (r *repairer) command(ctx context.Context, order uuid.UUID, seen string, there func(stored) bool, do work) (f facts.Fact, changed string, err error) {
	for again := true; again; {
		f, changed, err = r.once(ctx, order, seen, there, do)
		again = pg.Violates(err, "payments_pkey") // payments are not deleted: it is there the next time
	}
	return f, changed, err
}

// work is what a command does about a payment that is as it was seen: at once, or with b.
type work func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error)

func (r *repairer) once(ctx context.Context, order uuid.UUID, seen string, there func(stored) bool, do work) (f facts.Fact, changed string, err error) {
	var handover *outbox.Handover
	err = pg.InTx(ctx, r.db, func(tx pgx.Tx) error {
		s, err := r.find(ctx, tx, order)
		if err != nil {
			return err
		}
		switch {
		case there(s):
			f, err = source.Of(ctx, tx, order)
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
		f, err = source.Of(ctx, tx, order)
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

// charge charges for an order that should be paid, by the rules of any charge. If the ledger has the charge already,
// the status is put right. If it was seen as paid, and is, nothing changes; with tell, the order is told so again.
func (r *repairer) charge(ctx context.Context, seen string, tell bool, e event.InventoryReservedV1) (facts.Fact, string, error) {
	again := tell && seen == string(Completed)
	there := func(s stored) bool { return s.Status == Completed && (!again || s.status != seen) }
	return r.command(ctx, e.OrderID, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
		if again {
			return completed(ctx, s.Payment), nil
		}
		if s.state != "" {
			b.Queue(dropRefundSQL, e.OrderID)
		}
		r.cashier.keys.Forget(b, refundKey(e.OrderID)) // so that a later cancellation pays back again
		switch s.ledger() {
		case "":
			return nil, s.unclear(e.OrderID)
		case Completed:
			b.Queue(setStatusSQL, e.OrderID, string(Completed), "", "")
			return completed(ctx, s.Payment), nil
		}
		work, err := r.cashier.bank.load(ctx, tx, r.cashier.wantedBy(e), nil)
		if err != nil {
			return nil, err
		}
		p, refusal := r.cashier.charge(work, clock.NewID(), e)
		if refusal != nil {
			return nil, &refusedError{*refusal}
		}
		work.queueSave(b)
		if s.status == facts.None {
			queuePayments(b, []Payment{p})
		} else {
			b.Queue(repayPaymentSQL, p.OrderID, p.ID, p.UserID, p.Amount, p.Currency)
		}
		return completed(ctx, p), nil
	})
}

func completed(ctx context.Context, p Payment) []saga.Out {
	return []saga.Out{saga.New(ctx, event.PaymentCompleted, p.OrderID.String(), event.PaymentCompletedV1{OrderID: p.OrderID, PaymentID: p.ID, Amount: p.Amount, Currency: p.Currency})}
}

// refund pays back what an order should not have paid, by the rows and not by the answer that may be stored under the
// order's key. If the ledger has the refund already, or no charge, the status is put right. What cannot be paid back
// now waits, as in the saga. Of an orphan, which order does not know, nobody is told.
func (r *repairer) refund(ctx context.Context, order uuid.UUID, seen string, orphan bool) (facts.Fact, string, error) {
	var tried []refund // if it comes to that
	there := func(s stored) bool { return s.status != facts.None && s.status != string(Completed) }
	f, changed, err := r.command(ctx, order, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
		if s.status == facts.None && !s.stray {
			return nil, &refusedError{Refusal{noPayment, "there is nothing to pay back: the order has no payment"}}
		}
		key := order.String()
		out := saga.New(ctx, event.PaymentRefunded, key, event.PaymentRefundedV1{OrderID: order, PaymentID: s.ID, Amount: s.Amount, Currency: s.Currency})
		switch is := s.ledger(); is {
		case "":
			return nil, s.unclear(order)
		case Failed:
			r.settle(b, s, is)
			out = saga.New(ctx, event.PaymentFailed, key, event.PaymentFailedV1{OrderID: order, Error: noCharge, Code: event.CodeNoCharge})
		case Refunded:
			r.settle(b, s, is)
		case Completed:
			var err error
			if tried, err = r.payBack(ctx, tx, s, b); err != nil {
				return nil, err
			}
			if refusal := tried[0].refusal; refusal != nil {
				out = saga.New(ctx, event.PaymentRefundFailed, key, event.PaymentRefundFailedV1{OrderID: order, Error: refusal.Reason, Code: refusal.code()})
			}
		}
		if orphan {
			return nil, nil
		}
		return []saga.Out{out}, nil
	})
	if err == nil {
		r.cashier.metrics.tried(tried...)
	}
	return f, changed, err
}

// payBack adds to b what pays back, or what makes it wait, and returns the one attempt.
func (r *repairer) payBack(ctx context.Context, tx pgx.Tx, s stored, b *pgx.Batch) ([]refund, error) {
	one := []refund{s.refundable.refund(r.cause(s.OrderID))}
	moves, err := r.cashier.payBack(ctx, tx, one)
	if err != nil {
		return nil, err
	}
	b.QueuedQueries = append(b.QueuedQueries, moves.QueuedQueries...)
	return one, r.cashier.queueRefunds(b, upsertRefundSQL, one)
}
