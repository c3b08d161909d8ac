package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// ErrUnknownOrder says that no service knows anything of the order that was asked for.
var ErrUnknownOrder = errors.New("no service knows of this order")

// Config says whom to ask and what to judge by. The zero value of a field means its default, but for the addresses.
type Config struct {
	OrderURL, InventoryURL, PaymentURL string

	Grace           time.Duration // what clocks may disagree by, and what takes its time; default 30 s
	PendingAfter    time.Duration // an order that is PENDING for longer is stuck; default 20 min, more than order's own deadline
	CancellingAfter time.Duration // one that is CANCELLING for longer is; default 10 min
	OutboxAfter     time.Duration // an event that is not published for longer is; default 1 min

	BrakeShare float64 // of the orders that were compared, no larger share is repaired before somebody confirms it; default 0.01
	BrakeFloor int     // but for so few; default 20
	MaxRepairs int     // one check makes no more repairs, confirmed or not; default 200

	Letters func(context.Context) ([]Letter, error) // the dead letters; nil: none are looked at
	Redrive func(context.Context, []Letter) error   // puts them back where they came from; nil: that is an operator's to do

	// Journal writes down what is about to be repaired, and is then told how that ended, and what there is after it; nil: nobody does. Its error keeps
	// it from being repaired.
	Journal func(context.Context, Finding) (end func(f Finding, after any), err error)

	// Seen returns the databases that services have answered from, by service, and Saw remembers one, in place of the one that is known if it is
	// accepted. nil: databases are not compared with what they were.
	Seen func(context.Context) (map[string]facts.Identity, error)
	Saw  func(ctx context.Context, service string, is facts.Identity, accept bool) error

	Acknowledged func(context.Context) ([]Acknowledgement, error) // what somebody knows of; nil: nothing

	Log  *slog.Logger // default discards
	HTTP *http.Client // default one that does not wait long for who is not there

	now func() time.Time
}

// Checker checks. It is safe for concurrent use.
type Checker struct{ cfg Config }

// New returns a checker.
func New(cfg Config) *Checker {
	cfg.Grace = cmp.Or(cfg.Grace, 30*time.Second)
	cfg.PendingAfter = cmp.Or(cfg.PendingAfter, 20*time.Minute)
	cfg.CancellingAfter = cmp.Or(cfg.CancellingAfter, 10*time.Minute)
	cfg.OutboxAfter = cmp.Or(cfg.OutboxAfter, time.Minute)
	cfg.BrakeShare = cmp.Or(cfg.BrakeShare, brakeShare)
	cfg.BrakeFloor = cmp.Or(cfg.BrakeFloor, brakeFloor)
	cfg.MaxRepairs = cmp.Or(cfg.MaxRepairs, maxRepairs)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.HTTP = cmp.Or(cfg.HTTP, newClient())
	if cfg.now == nil {
		cfg.now = time.Now
	}
	return &Checker{cfg}
}

// Check compares what the services hold, and puts it right if it is asked to. Where a service cannot be asked, it goes on with the parts that do not need
// it, and fails with the first error, a [ServiceError] where it is known whose: a check that could not look is not a clean one. The report then says
// what was found, and done, which parts looked, and which failed.
func (c *Checker) Check(ctx context.Context, r Request) (Report, error) {
	k := &check{Request: r, cfg: c.cfg, waiting: map[uuid.UUID]Held{}, dropped: map[Kind]int{}}
	k.peers = three[*peer]{
		k.peer("order", c.cfg.OrderURL, "confirmed"), k.peer("inventory", c.cfg.InventoryURL, "reserved"), k.peer("payment", c.cfg.PaymentURL, "paid"),
	}
	k.repairer = repairer{k.peers, clip(cmp.Or(r.By, "checker")), c.cfg.MaxRepairs}
	k.report = Report{At: c.cfg.now().UTC(), Since: r.Since, Order: r.Order}
	began := time.Now()
	err := inTurn(ctx, k.identify, k.run)
	found := append(k.others, k.findings()...)
	k.sayHeld(found)
	err = cmp.Or(err, k.markAcknowledged(ctx, found))
	k.report.tell(found, k.dropped)
	k.report.Cost = Cost{k.meter.requests.Load(), k.meter.bytes.Load(), k.meter.rows.Load(), time.Since(began).Milliseconds()}
	return k.report, err
}

// check is one check.
type check struct {
	Request
	cfg      Config
	peers    three[*peer]
	meter    meter
	repairer repairer
	report   Report

	waiting map[uuid.UUID]Held // differed in the first look, to be looked at again
	faulty  []faulty           // by id
	others  []Finding          // of what is no order, and of the services' own rules
	dropped map[Kind]int       // findings that were not kept
	due     int                // orders that the checker is to repair, with those that were not kept
}

func (k *check) peer(name, url, set string) *peer {
	return &peer{name: name, url: strings.TrimRight(url, "/"), set: set, http: k.cfg.HTTP, meter: &k.meter}
}

// faulty is an order that something is wrong with.
type faulty struct {
	id     uuid.UUID
	flaws  []flaw
	repair Repair
	held   Held
	plan   plan
}

// run looks and then repairs.
func (k *check) run(ctx context.Context) error {
	switch {
	case k.Order != uuid.Nil:
		return inTurn(ctx, k.one, k.repairOrders)
	case !k.Since.IsZero():
		return inTurn(ctx, k.part(PartRecent, k.compare), k.repairOrders)
	}
	return k.everything(ctx)
}

// inTurn does one after the other until one fails.
func inTurn(ctx context.Context, fns ...func(context.Context) error) error {
	for _, fn := range fns {
		if err := fn(ctx); err != nil {
			return err
		}
	}
	return nil
}

// one looks at the one order that was asked for.
func (k *check) one(ctx context.Context) error {
	held, err := look(ctx, k.peers, []uuid.UUID{k.Order})
	if err != nil {
		return err
	}
	h := held[k.Order]
	if h.nothing() {
		return fmt.Errorf("%w: %s", ErrUnknownOrder, k.Order)
	}
	k.report.Checked = 1
	k.waiting[k.Order] = h
	_, err = k.settle(ctx)
	return err
}

// compare looks for orders that differ, and judges so many of them at once.
func (k *check) compare(ctx context.Context) error {
	now := k.cfg.now()
	c := comparison{peers: k.peers, found: func(ctx context.Context, id uuid.UUID, h Held) (err error) {
		if k.waiting[id] = h; len(k.waiting) == pageSize {
			_, err = k.settle(ctx)
		}
		return err
	}}
	all, err := periods(ctx, k.peers[orders], k.Since, now.Add(-k.cfg.Grace), now)
	if err != nil {
		return err
	}
	for _, p := range all {
		if err := c.compare(ctx, p); err != nil {
			return err
		}
	}
	k.report.Checked = c.checked
	flow, err := k.settle(ctx) // also with nothing left to settle: the report says up to when it is true
	if err != nil {
		return err
	}
	for i, f := range flow {
		if age := time.Duration(f.UnpublishedMs) * time.Millisecond; age > k.cfg.OutboxAfter {
			k.others = append(k.others, Finding{
				Kind: OutboxStuck, Subject: k.peers[i].name, Repair: Repair{Action: string(stepOperator), State: None},
				Detail: fmt.Sprintf("%d events wait to be published, the oldest for %s", f.Unpublished, age.Round(time.Second)),
			})
		}
	}
	return nil
}

// settle asks for flow, looks once more at what differed, and judges it; see the rule in the package's comment.
func (k *check) settle(ctx context.Context) (three[facts.Flow], error) {
	t := terms{now: k.cfg.now(), pending: k.cfg.PendingAfter, cancelling: k.cfg.CancellingAfter}
	flow, lag, err := k.flow(ctx)
	if err != nil {
		return flow, err
	}
	t.watermark = t.now.Add(-lag - k.cfg.Grace)
	if k.report.Watermark.IsZero() || t.watermark.Before(k.report.Watermark) {
		k.report.Watermark = t.watermark.UTC()
	}
	ids := sorted(k.waiting)
	if len(ids) == 0 {
		return flow, nil
	}
	again, err := look(ctx, k.peers, ids)
	if err != nil {
		return flow, err
	}
	for _, id := range ids {
		h := again[id]
		flaws, inFlight := judge(h, t)
		if !h.same(k.waiting[id]) {
			flaws, inFlight = nil, h.differs()
		}
		if inFlight {
			k.report.InFlight++
		}
		k.keep(id, h, flaws)
	}
	clear(k.waiting)
	return flow, nil
}

// flow asks twice how far all services are: what left an outbox before it was asked for in the first round is found in Kafka in the second.
func (k *check) flow(ctx context.Context) (flow three[facts.Flow], lag time.Duration, err error) {
	var unpublished, unhandled int64
	for range 2 {
		flow, err = ask(ctx, k.peers, func(ctx context.Context, p *peer) (facts.Flow, error) { return p.flow(ctx) })
		if err != nil {
			return flow, 0, err
		}
		for _, f := range flow {
			unpublished, unhandled = max(unpublished, f.UnpublishedMs), max(unhandled, f.UnhandledMs)
		}
	}
	return flow, time.Duration(unpublished+unhandled) * time.Millisecond, nil
}

// keep keeps an order with flaws, up to a number.
func (k *check) keep(id uuid.UUID, h Held, flaws []flaw) {
	p := planFor(h, flaws)
	if p.todo() {
		k.due++
	}
	switch {
	case len(flaws) == 0:
	case len(k.faulty) == maxFindings:
		for _, f := range flaws {
			k.dropped[f.kind]++
		}
	default:
		repair := Repair{Action: p.String(), State: None, Detail: p.advice, Before: &h}
		if p.todo() {
			repair.State = Planned
		}
		k.faulty = append(k.faulty, faulty{id, flaws, repair, h, p})
	}
}

// repairOrders carries out the plans of the first orders.
func (k *check) repairOrders(ctx context.Context) error {
	k.brakeOrders()
	if k.held() {
		return nil
	}
	lost := 0
	for i := range k.faulty {
		f := &k.faulty[i]
		switch {
		case !f.plan.todo():
			continue
		case k.repairer.left == 0:
			f.repair.Detail = fmt.Sprintf("not yet: one check makes %d repairs", k.cfg.MaxRepairs)
			continue
		case lost == maxLost:
			f.repair.Detail = "not yet: the services do not answer"
			continue
		}
		end, err := k.begin(ctx, f.findings()...)
		if err != nil {
			return err
		}
		var answered bool
		f.repair, answered = k.repairer.order(ctx, f.id, f.held, f.plan)
		end(f.repair, f.repair.After)
		lost++
		k.repairer.left--
		if answered {
			lost = 0
		}
		k.cfg.Log.InfoContext(ctx, "order repaired", "order", f.id, "kind", f.flaws[0].kind, "action", f.repair.Action, "state", f.repair.State,
			"detail", f.repair.Detail, "before", f.held.String(), "after", f.repair.After.String(), "by", k.repairer.by)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// findings are what is wrong with orders.
func (k *check) findings() (all []Finding) {
	for _, f := range k.faulty {
		all = append(all, f.findings()...)
	}
	return all
}

func (f faulty) findings() (all []Finding) {
	for _, one := range f.flaws {
		all = append(all, Finding{OrderID: f.id, Kind: one.kind, Detail: one.detail, Repair: f.repair})
	}
	return all
}

// begin writes down what is about to be repaired. The function that it returns writes down what became of it.
func (k *check) begin(ctx context.Context, found ...Finding) (end func(r Repair, after any), err error) {
	if k.cfg.Journal == nil {
		return func(Repair, any) {}, nil
	}
	ends := make([]func(Finding, any), len(found))
	for i, f := range found {
		if ends[i], err = k.cfg.Journal(ctx, f); err != nil {
			return nil, err
		}
	}
	return func(r Repair, after any) {
		for i, f := range found {
			f.Repair = r
			ends[i](f, after)
		}
	}, nil
}
