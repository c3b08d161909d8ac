package checker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// The services, in the order in which an order meets them.
const (
	orders = iota
	reservations
	payments
)

// three is one of each service.
type three[T any] [3]T

// names are what the services are called.
var names = three[string]{"order", "inventory", "payment"}

// Config is what the library is configured with, and what the saga is judged by. The zero value of a field means its
// default, but for the addresses.
type Config struct {
	checker.Config // its services, rules and plan are declared here

	OrderURL, InventoryURL, PaymentURL string

	ProfileURL, SearchURL string // without the latter, what search shows is not compared

	PendingAfter    time.Duration // an order that is PENDING for longer is stuck; default 20 min, more than order's own deadline
	CancellingAfter time.Duration // one that is CANCELLING for longer is; default 10 min
}

// declare returns the configuration with the saga's services, its rule and its repairs.
func (c Config) declare() checker.Config {
	cfg := c.Config
	cfg.Services = []checker.Service{
		{Name: names[orders], URL: c.OrderURL, Set: "confirmed"},
		{
			Name: names[reservations], URL: c.InventoryURL, Set: "reserved", Holds: "reservation",
			// Units of a reservation that is lost look free, and would be sold.
			RecountLast: true,
			Audits:      []checker.Audited{{Kind: StockMismatch, Recount: "/products/{subject}/recount"}, {Kind: StockChanged}},
		},
		{
			Name: names[payments], URL: c.PaymentURL, Set: "paid",
			// Balances show which entry of a transfer is missing, so they stay as they are until transfers are whole.
			Audits: []checker.Audited{
				{Kind: TransferUnbalanced, Recount: "/transfers/{subject}/recount"},
				{Kind: TransferMismatch, Recount: "/transfers/{subject}/recount"},
				{Kind: ChargeWithoutPayment, Recount: "/payments/{subject}/recount", OfThing: true},
				{Kind: PaymentMismatch, Recount: "/payments/{subject}/recount", OfThing: true},
				{Kind: BalanceMismatch, Recount: "/accounts/{subject}/recount"},
				{Kind: EntriesMismatch}, {Kind: AccountMismatch}, {Kind: LedgerChanged},
			},
		},
	}
	cfg.Rules = []checker.Rule{rule(cmp.Or(c.PendingAfter, 20*time.Minute), cmp.Or(c.CancellingAfter, 10*time.Minute))}
	cfg.Plan = planOf
	if c.SearchURL != "" {
		cfg.Mirrors = []checker.Mirror{{Name: "search", URL: c.SearchURL, Of: []checker.Mirrored{
			{Set: "products", Thing: "product", Owner: names[reservations], URL: c.InventoryURL},
			{Set: "users", Thing: "user", Owner: "profile", URL: c.ProfileURL},
		}}}
	}
	return cfg
}

// rule is what must be true of an order. Its kinds depend on each other, and a repair on all of them, so it is one.
func rule(pending, cancelling time.Duration) checker.Rule {
	return checker.Rule{
		Kinds: ofOrders, DiffersIn: differsIn,
		Differs: func(h checker.Held) bool { return heldOf(h).differs() },
		Flaws: func(h checker.Held, t checker.Terms) []checker.Flaw {
			return heldOf(h).flaws(terms{now: t.Now, pending: pending, cancelling: cancelling})
		},
	}
}

// differsIn tells whether the span needs to be looked into: where two sets differ, or what is held of their members,
// or where an order is not settled, which no comparison of sets would show. Of services of an earlier version, which
// tell amounts in sum, two that are wrong by the same to either side pass.
func differsIn(b checker.Buckets) bool {
	order, reservation, payment := b.Of(names[orders]), b.Of(names[reservations]), b.Of(names[payments])
	return !order.Agrees(reservation) || !order.Agrees(payment) || order.Amount != payment.Amount || order.Open > 0
}

// planOf is an order's plan, as the library carries it out.
func planOf(id uuid.UUID, all checker.Held, flaws []checker.Flaw) checker.Plan {
	h := heldOf(all)
	p := planFor(h, flaws)
	out := checker.Plan{Action: p.String(), Advice: p.advice, First: slices.Contains(p.steps, stepReserve)}
	if p.todo() {
		out.Do = func(ctx context.Context, j checker.Job) (checker.Repair, bool) {
			r := repairer{by: clip(j.By)}
			for i, name := range names {
				r.peers[i] = j.Peer(name)
			}
			return r.order(ctx, id, h, p)
		}
	}
	return out
}

// Held is what the three services hold of an order; nil: nothing.
type Held struct {
	Order       *facts.Fact
	Reservation *facts.Fact
	Payment     *facts.Fact
}

// heldOf is what the services hold, by what it is.
func heldOf(h checker.Held) Held {
	return Held{h.Of(names[orders]), h.Of(names[reservations]), h.Of(names[payments])}
}

// all is what the services hold, as the library has it.
func (h Held) all() checker.Held {
	return checker.Held{
		{Service: names[orders], Name: "order", Fact: h.Order}, {Service: names[reservations], Name: "reservation", Fact: h.Reservation},
		{Service: names[payments], Name: "payment", Fact: h.Payment},
	}
}

func (h Held) String() string { return h.all().String() }

// reserved and paid tell whether the order is in these services' sets.
func (h Held) reserved() bool { return h.Reservation != nil && h.Reservation.Member }
func (h Held) paid() bool     { return h.Payment != nil && h.Payment.Member }

// refunding tells whether the payment is about to be paid back.
func (h Held) refunding() bool { return h.paid() && h.Payment.Status == statusRefunding }
