package payment

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
)

// settledByHand is why a payment failed that a person has decided not to be one.
const settledByHand = "an operator decided that it is not paid"

// notUnclear refuses to decide what the ledger decides.
const notUnclear = "not-unclear"

// decide carries out what a person decided of an order's money, where the ledger is unclear: whatever was charged for
// it goes back the way it came, or what was paid back too much comes back, and if it is to be paid, it is then charged
// once. So nothing of the past has to be explained, and entries are not changed. It is refused for the reasons of any
// charge, and while a transfer of the order lacks an entry. Of an order that is paid then, payment.completed is told.
func (r *repairer) decide(ctx context.Context, seen string, paid bool, e event.InventoryReservedV1) (facts.Fact, string, error) {
	there := func(s stored) bool {
		is := s.ledger()
		return is != "" && is == s.Status && (is == Completed) == paid
	}
	return r.command(ctx, e.OrderID, seen, there, func(tx pgx.Tx, s stored, b *pgx.Batch) ([]saga.Out, error) {
		if s.ledger() != "" {
			return nil, &refusedError{Refusal{notUnclear, "the ledger is clear: recount, charge or refund it"}}
		}
		var half bool
		if err := tx.QueryRow(ctx, halvesSQL, e.OrderID).Scan(&half); err != nil {
			return nil, err
		}
		if half {
			return nil, &refusedError{Refusal{unclear, "a transfer of the order lacks an entry: recount that first"}}
		}
		w := r.cashier.wantedBy(e)
		back := s.trace.undone(e.OrderID)
		for _, t := range back {
			from, to := accountKey{t.From, t.Currency}, accountKey{t.To, t.Currency}
			w.debit[from], w.other[to] = true, true
			w.open[from], w.open[to] = true, true
		}
		work, err := r.cashier.bank.load(ctx, tx, w, nil)
		if err != nil {
			return nil, err
		}
		for _, t := range back {
			if refusal := work.transfer(t); refusal != nil {
				return nil, &refusedError{*refusal}
			}
		}
		p := r.cashier.rule.attempt(clock.NewID(), e).failed(settledByHand).because(event.CodeDecidedByOperator, nil)
		if paid {
			var refusal *Refusal
			if p, refusal = r.cashier.charge(work, p.ID, e); refusal != nil {
				return nil, &refusedError{*refusal}
			}
		}
		work.queueSave(b)
		b.Queue(dropRefundSQL, e.OrderID)
		r.cashier.keys.Forget(b, refundKey(e.OrderID))
		switch {
		case s.status == facts.None:
			queuePayments(b, []Payment{p})
		case paid:
			b.Queue(repayPaymentSQL, p.OrderID, p.ID, p.UserID, p.Amount, p.Currency)
		default:
			b.Queue(failPaymentSQL, p.OrderID, p.ID, p.Reason, string(p.ReasonCode))
		}
		if !paid {
			return nil, nil
		}
		return completed(ctx, p), nil
	})
}

// undone is what takes a trace back: between each two accounts at most one transfer.
func (t trace) undone(order uuid.UUID) (back []Transfer) {
	type way struct{ payer, merchant, currency string }
	var ways []way
	left := map[way]int64{}
	for _, one := range t {
		w, sign := way{one.From, one.To, one.Currency}, int64(1)
		if one.Kind == Refund {
			w, sign = way{one.To, one.From, one.Currency}, -1
		}
		if _, known := left[w]; !known {
			ways = append(ways, w)
		}
		left[w] += sign * one.Amount
	}
	for _, w := range ways {
		one := Transfer{ID: clock.NewID(), Kind: Refund, From: w.merchant, To: w.payer, Amount: left[w], Currency: w.currency, Order: order}
		if one.Amount < 0 {
			one.Kind, one.From, one.To, one.Amount = Charge, w.payer, w.merchant, -one.Amount
		}
		if one.Amount != 0 {
			back = append(back, one)
		}
	}
	return back
}
