package payment

import (
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/saga"
)

// trace is what the ledger holds of one order: its transfers, oldest first, less those that were corrected. It outlives
// the payment's row.
type trace []Transfer

// entryColumns are those of [scanEntry], of entries e.
const entryColumns = `e.account_id, e.counterparty, e.transfer_id, e.kind, e.amount, coalesce(e.order_id, '00000000-0000-0000-0000-000000000000')`

func scanEntry(row pgx.CollectableRow) (e entry, err error) {
	return e, row.Scan(&e.account, &e.counterparty, &e.transfer, &e.kind, &e.amount, &e.order)
}

// readTraces reads what traceSQL or traceOfLostSQL selects, by order.
func readTraces(into map[uuid.UUID]trace) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		entries, err := pgx.CollectRows(rows, scanEntry)
		if err != nil {
			return err
		}
		byOrder := map[uuid.UUID][]entry{}
		for _, e := range entries {
			byOrder[e.order] = append(byOrder[e.order], e)
		}
		for order, some := range byOrder {
			into[order] = traceOf(some)
		}
		return nil
	}
}

// traceOf puts entries together to transfers. One that has lost an entry moved what the other says, as its accounts'
// balances do; a correction takes from what it corrects.
func traceOf(entries []entry) trace {
	type sides struct {
		Transfer
		in, out, corrected int64
	}
	var order []uuid.UUID
	byID := map[uuid.UUID]*sides{}
	for _, e := range entries {
		s := byID[e.transfer]
		if s == nil {
			s = &sides{Transfer: Transfer{ID: e.transfer, Order: e.order}}
			byID[e.transfer], order = s, append(order, e.transfer)
		}
		if e.kind == Correction {
			s.corrected += e.amount
			continue
		}
		s.Kind = e.kind
		if e.amount > 0 {
			s.in += e.amount
			s.From, s.To = ownerOf(e.counterparty), ownerOf(e.account)
		} else {
			s.out -= e.amount
			s.From, s.To = ownerOf(e.account), ownerOf(e.counterparty)
		}
	}
	var t trace
	for _, id := range order {
		s := byID[id]
		_, s.Currency = nameOf(s.To)
		if s.Kind == Refund {
			_, s.Currency = nameOf(s.From)
		}
		if s.Amount = max(s.in, s.out) - max(s.corrected, -s.corrected); s.Amount != 0 {
			t = append(t, s.Transfer)
		}
	}
	return t
}

// paid is what was charged and not paid back, by all transfers but those.
func (t trace) paid(without ...uuid.UUID) (sum int64) {
	for _, one := range t {
		switch {
		case slices.Contains(without, one.ID):
		case one.Kind == Refund:
			sum -= one.Amount
		default:
			sum += one.Amount
		}
	}
	return sum
}

// lost is a payment that is restored from the ledger.
type lost struct {
	Payment
	merchant string    // the account that it was charged for
	refund   uuid.UUID // zero: it is not paid back
}

// restore is the payment whose row is lost. ok is false where only a person can say what it was: charges and refunds do
// not take turns, an amount is another, or who paid is not known.
func (t trace) restore() (l lost, ok bool) {
	for _, one := range t {
		switch {
		case one.Kind == Refund && l.Status == Completed && one.Amount == l.Amount && one.To == l.UserID:
			l.Status, l.refund = Refunded, one.ID
		case one.Kind == Charge && l.Status != Completed:
			l = lost{merchant: one.To, Payment: Payment{OrderID: one.Order, ID: one.ID, UserID: one.From, Amount: one.Amount, Currency: one.Currency, Status: Completed}}
		default:
			return lost{}, false
		}
	}
	return l, l.Currency != ""
}

// unclearLoss is the fault that a payment's row is lost, and the ledger does not say what it was. The message becomes a
// dead letter: nobody is charged, paid back or told anything before a person has decided.
func unclearLoss(order uuid.UUID, t trace) error {
	return saga.Permanent(fmt.Errorf("the payment of order %s is lost, and the ledger holds %d of it: only a person can say what is right, with POST /payments/%s/decide", order, t.paid(), order))
}

// queueLost queues what stores restored payments. cause is the message, or the command, that came across them.
func (c *cashier) queueLost(b *pgx.Batch, restored []lost, cause saga.Meta) error {
	var payments []Payment
	var refunds []refund
	for _, l := range restored {
		payments = append(payments, l.Payment)
		if l.refund != uuid.Nil {
			refunds = append(refunds, refund{id: l.refund, payment: l.Payment, cause: cause})
		}
	}
	queuePayments(b, payments)
	return c.queueRefunds(b, addRefundsSQL, refunds)
}
