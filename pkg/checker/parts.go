package checker

import (
	"cmp"
	"context"
	"slices"
)

// Part is one of the looks that a check consists of. Each succeeds or fails by itself, and has a last success of its
// own.
type Part string

// The parts of checks; see [AuditOf] and [Mirror] for the others.
const (
	PartRecent  Part = "recent"       // the orders of the last while, compared
	PartOrders  Part = "orders"       // all orders, compared
	PartLetters Part = "dead-letters" // what lies in Kafka
)

// AuditOf is the audit that a service makes of its own database.
func AuditOf(service string) Part { return Part("audit-" + service) }

// parts lists them all.
func (c Config) parts() []Part {
	all := []Part{PartRecent, PartOrders}
	for _, s := range c.Services {
		all = append(all, AuditOf(s.Name))
	}
	for _, m := range c.Mirrors {
		all = append(all, m.part())
	}
	return append(all, PartLetters)
}

// Failure is a part of a check that could not look.
type Failure struct {
	Part   Part   `json:"part" example:"audit-payment"`
	Detail string `json:"detail" doc:"why"`
}

// partOf is the part that finds a kind, in a check of everything.
func (c Config) partOf(kind Kind) Part {
	if kind == DeadLetters {
		return PartLetters
	}
	for _, s := range c.Services {
		if s.audited(kind).Kind == kind {
			return AuditOf(s.Name)
		}
	}
	for _, m := range c.Mirrors {
		if slices.Contains(m.kinds(), kind) {
			return m.part()
		}
	}
	return PartOrders
}

// kinds lists what can be found, but for what services find that is not declared.
func (c Config) kinds() (all []Kind) {
	for _, r := range c.Rules {
		all = append(all, r.Kinds...)
	}
	for _, s := range c.Services {
		for _, a := range s.Audits {
			all = append(all, a.Kind)
		}
	}
	for _, m := range c.Mirrors {
		all = append(all, m.kinds()...)
	}
	return append(all, OutboxStuck, DeadLetters, DatabaseChanged)
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

// everything looks at each part, whatever becomes of the others, and returns the first error. What a part would have
// found is not known where it failed, so nothing is repaired that depends on it:
//
//   - What services count by themselves is counted anew first, such as a ledger: by a payment that it contradicts, its order would be judged wrongly.
//   - Orders are repaired when all audits and the comparison have succeeded.
//   - What is counted by what orders hold comes last ([Service.RecountLast]), when they hold what they should, such as stock: units of a reservation
//     that is lost look free, and would be sold.
//   - Read sides are told again whatever else is wrong: nobody decides by what they show.
func (k *check) everything(ctx context.Context) error {
	var first error
	failed := func(err error) bool {
		if first == nil {
			first = err
		}
		return err != nil
	}
	audits := failed(k.audit(ctx))
	if failed(k.recountAll(ctx, false)) || ctx.Err() != nil {
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
	case failed(k.recountAll(ctx, true)):
		return first
	}
	if ctx.Err() == nil && k.cfg.Letters != nil {
		failed(k.part(PartLetters, k.letters)(ctx))
	}
	if ctx.Err() == nil {
		failed(k.mirrors(ctx))
	}
	return first
}

// unsettled tells whether an order that others are counted by is still not what it should be.
func unsettled(f faulty) bool { return f.plan.First && f.repair.State != Done }

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
		if f := &k.others[i]; f.Repair.State == Planned && slices.ContainsFunc(k.cfg.Services, func(s Service) bool { return s.RecountLast && s.recount(f.Kind) != "" }) {
			f.Repair.Detail = why
		}
	}
}
