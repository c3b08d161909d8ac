package checker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// ErrUnknownOrder says that no service knows anything of the order that was asked for.
var ErrUnknownOrder = errors.New("no service knows of this order")

// Config declares what is checked: the services, what must be true of what they hold, and what to judge by. The zero
// value of a field means its default, but for the services and the rules.
type Config struct {
	Services []Service // whom to ask, in the order in which reports tell of them; the first one is asked when the first thing was made
	Rules    []Rule    // what must be true

	Mirrors []Mirror // read sides that show what services hold, to be compared with them; none: none are

	// Plan says what to do about a thing with flaws, where the commands that rules name do not ([Rule.RepairedBy]).
	// nil: they do.
	Plan func(id uuid.UUID, h Held, flaws []Flaw) Plan

	Grace       time.Duration // what clocks may disagree by, and what takes its time; default 30 s
	OutboxAfter time.Duration // an event that is not published for longer is stuck; default 1 min

	BrakeShare float64 // of the orders that were compared, no larger share is repaired before somebody confirms it; default 0.01
	BrakeFloor int     // but for so few; default 20
	MaxRepairs int     // one check makes no more repairs, confirmed or not; default 200

	Letters func(context.Context) ([]Letter, error) // the dead letters; nil: none are looked at
	Redrive func(context.Context, []Letter) error   // puts them back where they came from; nil: that is an operator's to do

	// Journal writes down what is about to be repaired, and is then told how that ended, and what there is after it;
	// nil: nobody does. Its error keeps it from being repaired.
	Journal func(context.Context, Finding) (end func(f Finding, after any), err error)

	// Seen returns the databases that services have answered from, by service, and Saw remembers one, in place of the
	// one that is known if it is accepted. nil: databases are not compared with what they were.
	Seen func(context.Context) (map[string]facts.Identity, error)
	Saw  func(ctx context.Context, service string, is facts.Identity, accept bool) error

	Acknowledged func(context.Context) ([]Acknowledgement, error) // what somebody knows of; nil: nothing

	Log  *slog.Logger     // default discards
	HTTP *http.Client     // default one that does not wait long for who is not there
	Now  func() time.Time // default time.Now
}

// Service is one that serves what it holds ([facts.Server]).
type Service struct {
	Name  string // what findings, errors and parts of checks call it
	URL   string
	Set   string // what its members are, as it says itself: [facts.Source.Set]. What says otherwise is another service, and not compared
	Holds string // what it holds of a thing, such as "reservation", in reports; default Name

	Audits      []Audited // what its own audit finds ([facts.Rule]), in the order in which it is to be repaired
	RecountLast bool      // its audit is repaired when all things hold what they should, by which it counts; otherwise before they are compared
}

// Audited is a kind that a service's own audit finds. One that is not declared is reported, and left to a person.
type Audited struct {
	Kind    Kind
	Recount string // the command that puts it right, a POST in which {subject} stands for what it was found at; empty: a person does
	OfThing bool   // the subject is a thing's id
}

// Checker checks. It is safe for concurrent use.
type Checker struct{ cfg Config }

// New returns a checker. A rule or a command that names a service that is not declared is an error, as is a service
// that lacks its name or set.
func New(cfg Config) (*Checker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return newChecker(cfg), nil
}

// validate tells what is missing in a declaration.
func (c Config) validate() error {
	if len(c.Services) == 0 || len(c.Rules) == 0 {
		return errors.New("checker: expected services and rules")
	}
	for i, s := range c.Services {
		if s.Name == "" || s.Set == "" {
			return fmt.Errorf("checker: expected a name and a set of service %d: %+v", i, s)
		}
		if slices.ContainsFunc(c.Services[:i], func(o Service) bool { return o.Name == s.Name }) {
			return fmt.Errorf("checker: there are two services %q", s.Name)
		}
	}
	for i, m := range c.Mirrors {
		taken := slices.Contains(Config{Services: c.Services, Mirrors: c.Mirrors[:i]}.parts(), m.part())
		if m.Name == "" || taken || len(m.Of) == 0 || slices.ContainsFunc(m.Of, func(o Mirrored) bool { return o.Set == "" || o.Thing == "" || o.Owner == "" }) {
			return fmt.Errorf("checker: expected a name of its own, and sets, things and owners, of mirror %d: %+v", i, m)
		}
	}
	for _, r := range c.Rules {
		if len(r.Kinds) == 0 || r.DiffersIn == nil || r.Differs == nil || r.Flaws == nil {
			return fmt.Errorf("checker: expected kinds and all functions of the rule %v", r.Kinds)
		}
		for _, name := range r.services {
			if err := c.named(name); err != nil {
				return fmt.Errorf("%w (rule %v)", err, r.Kinds)
			}
		}
	}
	return nil
}

// newChecker returns a checker of what was validated.
func newChecker(cfg Config) *Checker {
	cfg.Services = slices.Clone(cfg.Services)
	for i := range cfg.Services {
		s := &cfg.Services[i]
		s.Holds = cmp.Or(s.Holds, s.Name)
	}
	cfg.Grace = cmp.Or(cfg.Grace, 30*time.Second)
	cfg.OutboxAfter = cmp.Or(cfg.OutboxAfter, time.Minute)
	cfg.BrakeShare = cmp.Or(cfg.BrakeShare, brakeShare)
	cfg.BrakeFloor = cmp.Or(cfg.BrakeFloor, brakeFloor)
	cfg.MaxRepairs = cmp.Or(cfg.MaxRepairs, maxRepairs)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.HTTP = cmp.Or(cfg.HTTP, newClient())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Checker{cfg}
}

// Check compares what the services hold, and puts it right if it is asked to. Where a service cannot be asked, it goes
// on with the parts that do not need it, and fails with the first error, a [ServiceError] where it is known whose: a
// check that could not look is not a clean one. The report then says what was found, and done, which parts looked, and
// which failed.
func (c *Checker) Check(ctx context.Context, r Request) (Report, error) {
	k := &check{Request: r, cfg: c.cfg, waiting: map[uuid.UUID]Held{}, dropped: map[Kind]int{}}
	for _, s := range c.cfg.Services {
		k.peers = append(k.peers, newPeer(s, c.cfg.HTTP, &k.meter))
	}
	k.By, k.left = cmp.Or(r.By, "checker"), c.cfg.MaxRepairs
	k.report = Report{At: c.cfg.Now().UTC(), Since: r.Since, Order: r.Order}
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
	cfg    Config
	peers  []*Peer
	meter  meter
	report Report
	left   int // repairs that the check may still make: a mistake of the checker's, or of who set it up, does no more harm than that

	waiting map[uuid.UUID]Held // differed in the first look, to be looked at again
	faulty  []faulty           // by id
	others  []Finding          // of what is no order, and of the services' own rules
	dropped map[Kind]int       // findings that were not kept
	due     int                // orders that the checker is to repair, with those that were not kept
}

// faulty is an order that something is wrong with.
type faulty struct {
	id     uuid.UUID
	flaws  []Flaw
	repair Repair
	held   Held
	plan   Plan
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
	held, err := k.cfg.look(ctx, k.peers, []uuid.UUID{k.Order})
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
	now := k.cfg.Now()
	c := comparison{cfg: k.cfg, peers: k.peers, found: func(ctx context.Context, id uuid.UUID, h Held) (err error) {
		if k.waiting[id] = h; len(k.waiting) == pageSize {
			_, err = k.settle(ctx)
		}
		return err
	}}
	all, err := periods(ctx, k.peers[0], k.Since, now.Add(-k.cfg.Grace), now)
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
				Kind: OutboxStuck, Subject: k.peers[i].name, Repair: Repair{Action: actionOperator, State: None},
				Detail: fmt.Sprintf("%d events wait to be published, the oldest for %s", f.Unpublished, age.Round(time.Second)),
			})
		}
	}
	return nil
}

// settle asks for flow, looks once more at what differed, and judges it; see the rule in the package's comment.
func (k *check) settle(ctx context.Context) ([]facts.Flow, error) {
	t := Terms{Now: k.cfg.Now()}
	flow, lag, err := k.flow(ctx)
	if err != nil {
		return flow, err
	}
	t.Watermark = t.Now.Add(-lag - k.cfg.Grace)
	if k.report.Watermark.IsZero() || t.Watermark.Before(k.report.Watermark) {
		k.report.Watermark = t.Watermark.UTC()
	}
	ids := sorted(k.waiting)
	if len(ids) == 0 {
		return flow, nil
	}
	again, err := k.cfg.look(ctx, k.peers, ids)
	if err != nil {
		return flow, err
	}
	for _, id := range ids {
		h := again[id]
		flaws, inFlight := k.cfg.judge(h, t)
		if !h.Same(k.waiting[id]) {
			flaws, inFlight = nil, k.cfg.differs(h)
		}
		if inFlight {
			k.report.InFlight++
		}
		k.keep(id, h, flaws)
	}
	clear(k.waiting)
	return flow, nil
}

// judge says what is wrong with a thing, by all rules, or that it differs and is on its way, or neither: all rules
// hold.
func (c Config) judge(h Held, t Terms) (flaws []Flaw, inFlight bool) {
	for _, r := range c.Rules {
		some, waits := r.Judge(h, t)
		flaws, inFlight = append(flaws, some...), inFlight || waits
	}
	return flaws, inFlight && len(flaws) == 0
}

// flow asks twice how far all services are: what left an outbox before it was asked for in the first round is found in
// Kafka in the second.
func (k *check) flow(ctx context.Context) (flow []facts.Flow, lag time.Duration, err error) {
	var unpublished, unhandled int64
	for range 2 {
		flow, err = ask(ctx, k.peers, func(ctx context.Context, p *Peer) (facts.Flow, error) { return p.flow(ctx) })
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
func (k *check) keep(id uuid.UUID, h Held, flaws []Flaw) {
	p := k.cfg.planFor(id, h, flaws)
	if p.Do != nil {
		k.due++
	}
	switch {
	case len(flaws) == 0:
	case len(k.faulty) == maxFindings:
		for _, f := range flaws {
			k.dropped[f.Kind]++
		}
	default:
		repair := Repair{Action: p.Action, State: None, Detail: p.Advice, Before: &h}
		if p.Do != nil {
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
		case f.plan.Do == nil:
			continue
		case k.left == 0:
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
		f.repair, answered = f.plan.Do(ctx, Job{ID: f.id, By: k.By, peers: k.peers})
		f.repair.Before = &f.held
		end(f.repair, f.repair.After)
		lost++
		k.left--
		if answered {
			lost = 0
		}
		k.cfg.Log.InfoContext(ctx, "order repaired", "order", f.id, "kind", f.flaws[0].Kind, "action", f.repair.Action, "state", f.repair.State,
			"detail", f.repair.Detail, "before", f.held.String(), "after", cmp.Or(f.repair.After, &f.held).String(), "by", k.By)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// maxLost is after how many orders in a row that a service gave no answer for the rest is left to the next check.
const maxLost = 3

// findings are what is wrong with orders.
func (k *check) findings() (all []Finding) {
	for _, f := range k.faulty {
		all = append(all, f.findings()...)
	}
	return all
}

func (f faulty) findings() (all []Finding) {
	for _, one := range f.flaws {
		all = append(all, Finding{OrderID: f.id, Kind: one.Kind, Detail: one.Detail, Repair: f.repair})
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
