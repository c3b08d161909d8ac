package checker

import (
	"cmp"
	"context"
	"slices"
)

// Part is one of the looks that a check consists of. Each succeeds or fails by itself, and has a last success of its own.
type Part string

// The parts of checks; see [AuditOf] for the others.
const (
	PartRecent  Part = "recent"       // the orders of the last while, compared
	PartOrders  Part = "orders"       // all orders, compared
	PartLetters Part = "dead-letters" // what lies in Kafka
)

// AuditOf is the audit that a service makes of its own database.
func AuditOf(service string) Part { return Part("audit-" + service) }

// Parts lists them all.
func Parts() []Part {
	return []Part{PartRecent, PartOrders, AuditOf("order"), AuditOf("inventory"), AuditOf("payment"), PartLetters}
}

// Failure is a part of a check that could not look.
type Failure struct {
	Part   Part   `json:"part" example:"audit-payment"`
	Detail string `json:"detail" doc:"why"`
}

// partOf is the part that finds a kind, in a check of everything.
func partOf(kind Kind) Part {
	switch kind {
	case StockMismatch, StockChanged:
		return AuditOf("inventory")
	case TransferUnbalanced, TransferMismatch, BalanceMismatch, PaymentMismatch, ChargeWithoutPayment, EntriesMismatch, AccountMismatch, LedgerChanged:
		return AuditOf("payment")
	case DeadLetters:
		return PartLetters
	}
	return PartOrders
}

// saw lists the parts that a check has looked at. A look at all orders is one at the recent ones, too.
func (r Report) saw() []Part {
	if slices.Contains(r.Looked, PartOrders) {
		return append([]Part{PartRecent}, r.Looked...)
	}
	return r.Looked
}

// note notes how a part ended, and returns its error.
func (k *check) note(p Part, err error) error {
	if err == nil {
		k.report.Looked = append(k.report.Looked, p)
		return nil
	}
	k.report.Failed = append(k.report.Failed, Failure{p, err.Error()})
	return err
}

// part is a look that is noted as one.
func (k *check) part(p Part, look func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error { return k.note(p, look(ctx)) }
}

// everything looks at each part, whatever becomes of the others, and returns the first error. What a part would have found is not known where it
// failed, so nothing is repaired that depends on it:
//
//   - The ledger is counted anew first: by a payment that the ledger contradicts, its order would be judged wrongly.
//   - Orders are repaired when all audits and the comparison have succeeded.
//   - Stock is counted anew last, when all orders hold what they should: units of a reservation that is lost look free, and would be sold.
func (k *check) everything(ctx context.Context) error {
	var first error
	failed := func(err error) bool {
		if first == nil {
			first = err
		}
		return err != nil
	}
	audits := failed(k.audit(ctx))
	if failed(k.recount(ctx, payments)) || ctx.Err() != nil {
		return cmp.Or(first, ctx.Err())
	}
	compared := !failed(k.part(PartOrders, k.compare)(ctx))
	switch {
	case ctx.Err() != nil:
		return cmp.Or(first, ctx.Err())
	case audits || !compared:
		k.wait("not yet: a part of the check failed that it depends on")
	case failed(k.repairOrders(ctx)):
		return first
	case slices.ContainsFunc(k.faulty, unsettled) || len(k.dropped) > 0:
		k.wait("not yet: orders come first, and some are not repaired")
	case failed(k.recount(ctx, reservations)):
		return first
	}
	if ctx.Err() == nil && k.cfg.Letters != nil {
		failed(k.part(PartLetters, k.letters)(ctx))
	}
	return first
}

// unsettled tells whether an order that lacks its reservation still does.
func unsettled(f faulty) bool {
	return slices.Contains(f.plan.steps, stepReserve) && f.repair.State != Done
}

// wait has what was not repaired say why, if it was to be and the brake does not hold it back.
func (k *check) wait(why string) {
	if k.held() {
		return
	}
	for i := range k.faulty {
		if r := &k.faulty[i].repair; r.State == Planned && r.Detail == "" {
			r.Detail = why
		}
	}
	for i := range k.others {
		if f := &k.others[i]; f.Kind == StockMismatch && f.Repair.State == Planned {
			f.Repair.Detail = why
		}
	}
}
