package payment

import (
	"cmp"
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// Config is what the service decides by. Zero values mean the defaults.
type Config struct {
	Rule     Rule
	Merchant string        // what the merchant's accounts are called, one for each currency; default "merchant"
	Opening  int64         // what a user's account holds when its first use opens it, in minor units
	RetryMax time.Duration // between two attempts to pay back at most; default 1 min

	now     func() time.Time
	metrics *metrics
}

// cashier charges and pays back.
type cashier struct {
	rule     Rule
	bank     bank
	keys     idempotency.Keys
	retryMax time.Duration
	now      func() time.Time
	metrics  *metrics
}

func newCashier(cfg Config) *cashier {
	c := &cashier{
		rule: cfg.Rule, bank: bank{merchant: cmp.Or(cfg.Merchant, "merchant"), opening: cfg.Opening},
		keys:     idempotency.Keys{Retention: 7 * 24 * time.Hour, Wait: true},
		retryMax: cmp.Or(cfg.RetryMax, time.Minute), now: cfg.now, metrics: cfg.metrics,
	}
	if c.now == nil {
		c.now = clock.Now
	}
	if c.metrics == nil {
		c.metrics = newMetrics()
	}
	return c
}

// Choreography is payment's part: what it reacts to, with what, and what it may say then.
//
// Refund has a consumer group of its own: it locks the merchant's account, in a transaction that no charge has to wait
// for.
func Choreography(cfg Config) saga.Service {
	c := newCashier(cfg)
	return saga.Service{
		Name: "payment",
		Routes: []saga.Route{
			saga.OnBatch(event.InventoryReserved, c.chargeAll, event.PaymentCompleted, event.PaymentFailed),
			saga.OnBatch(event.OrderCancelRequested, c.refundAll, event.PaymentRefunded, event.PaymentRefundFailed, event.PaymentFailed).Named("refund"),
		},
	}
}

// chargeAll charges for each order once. An order that was charged for, or declined, before gets its stored outcome
// again. Users' accounts are locked, and the merchant's is not: what it gets is written down beside it. Where the
// payment's row is lost, the ledger knows of the charge: it is restored, and nobody is charged again.
func (c *cashier) chargeAll(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.InventoryReservedV1]) ([]saga.Out, error) {
	orders := make([]uuid.UUID, len(msgs))
	events := make([]event.InventoryReservedV1, len(msgs))
	for i, m := range msgs {
		orders[i], events[i] = m.Data.OrderID, m.Data
	}
	w := c.wantedBy(events...)
	// Payments are read when the payers' accounts are locked: of two that charge for an order, the second sees the
	// first's.
	stored, traces := map[uuid.UUID]Payment{}, map[uuid.UUID]trace{}
	var more pgx.Batch
	more.Queue(readPaymentsSQL, orders).Query(readPayments(stored))
	more.Queue(traceOfLostSQL, orders).Query(readTraces(traces))
	b, err := c.bank.load(ctx, tx, w, &more)
	if err != nil {
		return nil, err
	}
	var added []Payment
	var restored []lost
	outs := make([]saga.Out, 0, len(msgs))
	for _, m := range msgs {
		p, ok := stored[m.Data.OrderID]
		switch t := traces[m.Data.OrderID]; {
		case ok:
		case len(t) > 0:
			l, ok := t.restore()
			if !ok {
				return nil, saga.Blame(m.Meta, unclearLoss(m.Data.OrderID, t))
			}
			p, restored = l.Payment, append(restored, l)
		default:
			p, _ = c.charge(b, clock.NewID(), m.Data)
			added = append(added, p)
		}
		stored[p.OrderID] = p
		outs = append(outs, outcome(m, p)...)
	}
	if len(restored) > 0 {
		var rows pgx.Batch
		if err := c.queueLost(&rows, restored, msgs[0].Meta); err != nil {
			return nil, err
		}
		if err := pg.Defer(ctx, tx, &rows); err != nil {
			return nil, err
		}
	}
	return outs, save(ctx, tx, b, added)
}

// wantedBy is the accounts that charges need.
func (c *cashier) wantedBy(charges ...event.InventoryReservedV1) *wanted {
	w := newWanted()
	for _, e := range charges {
		w.other[accountKey{c.bank.merchantOf(e.Currency), e.Currency}] = true
		if payer := (accountKey{e.UserID, e.Currency}); c.bank.user(e.UserID) && e.Amount > 0 {
			w.debit[payer], w.open[payer] = true, true
		}
	}
	return w
}

// outcome tells what came of the attempt to charge, which stays a fact when the money is paid back later.
func outcome(m saga.Msg[event.InventoryReservedV1], p Payment) []saga.Out {
	if p.Status == Failed {
		return saga.Emit(m, event.PaymentFailed, event.PaymentFailedV1{OrderID: p.OrderID, Error: p.Reason, Code: p.ReasonCode, Parameters: p.ReasonParameters})
	}
	return saga.Emit(m, event.PaymentCompleted, event.PaymentCompletedV1{OrderID: p.OrderID, PaymentID: p.ID, Amount: p.Amount, Currency: p.Currency})
}
