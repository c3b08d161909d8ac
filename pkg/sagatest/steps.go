package sagatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// kind is what happens in a step.
type kind int

const (
	input      kind = iota // the next input takes place
	relay                  // a relay publishes
	poll                   // a member handles what it has read
	overlap                // two do at the same time
	wake                   // a member that was replaced handles what it had read
	background             // a service does what nobody asked for
)

// fate is what goes wrong in a step.
type fate int

const (
	fine        fate = iota
	again            // input: the record is published twice; relay: it forgets what it has published
	uncommitted      // poll: Kafka is not told
	crashBefore      // poll: the member crashes before its transaction commits
	crashAfter       // poll: it crashes after that, before Kafka is told
	replaced         // poll: the member is replaced and handles its records later; overlap: its successor reads them, too
)

// step is one of a history. It says what happens and not to which records, so that it means something without the steps before it.
type step struct {
	kind kind
	fate fate
	at   int    // which group, database or service
	with int    // overlap: the other group; background: which function
	n    int    // records or rows, at most
	mix  uint64 // how a poll mixes partitions
	leap time.Duration
}

// odds are how likely each relay and each group is chosen: some lag far behind in some histories.
type odds struct{ input, background, relays, groups float64s }

type float64s []float64

func (s *simulation) drawOdds(r *rand.Rand) odds {
	draw := func(n int) float64s {
		out := make(float64s, n)
		for i := range out {
			out[i] = []float64{1, 1, 4, 0.05}[r.IntN(4)]
		}
		return out
	}
	return odds{input: draw(1), background: draw(1), relays: draw(len(s.databases)), groups: draw(len(s.groups))}
}

// draw chooses a step among those that are possible. any is false when none is.
func (s *simulation) draw(r *rand.Rand, o odds) (st step, any bool) {
	var choices []step
	var weights float64s
	add := func(weight float64, st step) { choices, weights = append(choices, st), append(weights, weight) }
	for _, done := range s.done {
		if !done {
			add(o.input[0], step{kind: input})
			break
		}
	}
	for i, d := range s.databases {
		if d.dirty {
			add(o.relays[i], step{kind: relay, at: i})
		}
	}
	for i, g := range s.groups {
		if len(g.waiting(s.kafka)) > 0 {
			add(o.groups[i], step{kind: poll, at: i})
		}
		if len(g.zombies) > 0 {
			add(0.3, step{kind: wake, at: i})
		}
	}
	if len(choices) == 0 {
		return st, false
	}
	for i, svc := range s.services {
		for n := range svc.Background {
			add(0.2*o.background[0], step{kind: background, at: i, with: n})
		}
	}
	st = choices[weights.draw(r)]
	s.drawFate(r, &st)
	return st, true
}

func (w float64s) draw(r *rand.Rand) int {
	sum := 0.0
	for _, x := range w {
		sum += x
	}
	at := r.Float64() * sum
	for i, x := range w {
		if at -= x; at < 0 {
			return i
		}
	}
	return len(w) - 1
}

// drawFate completes a step.
func (s *simulation) drawFate(r *rand.Rand, st *step) {
	luck := r.Float64()
	st.n, st.mix = 1+r.IntN(4), r.Uint64()
	if r.IntN(4) == 0 {
		st.n = most
	}
	switch st.kind {
	case input:
		if luck < 0.1 {
			st.fate = again
		}
	case relay:
		if luck < 0.2 {
			st.fate = again
		}
	case background:
		st.leap = []time.Duration{time.Second, time.Minute, time.Hour}[r.IntN(3)]
	case poll:
		switch {
		case r.IntN(4) == 0 && len(s.groups[st.at].waiting(s.kafka)) > 1:
			st.kind, st.with = overlap, st.at
		case luck < 0.45:
		case luck < 0.52:
			st.fate = uncommitted
		case luck < 0.62:
			st.fate = crashBefore
		case luck < 0.72:
			st.fate = crashAfter
		case luck < 0.8:
			st.fate = replaced
		case luck < 0.9:
			st.kind, st.with, st.fate = overlap, st.at, replaced
		default:
			st.kind, st.with = overlap, s.neighbour(r, st.at)
		}
	}
}

// neighbour chooses another group of the same database, or the group itself if there is none.
func (s *simulation) neighbour(r *rand.Rand, at int) int {
	var others []int
	for i, g := range s.groups {
		if i != at && s.of[g.service] == s.of[s.groups[at].service] {
			others = append(others, i)
		}
	}
	if len(others) == 0 {
		return at
	}
	return others[r.IntN(len(others))]
}

// do takes a step. did is false where it is not possible now.
func (s *simulation) do(ctx context.Context, st step) (did bool, err error) {
	switch st.kind {
	case input:
		return s.input(ctx, st)
	case relay:
		return s.relay(ctx, st)
	case poll:
		return s.poll(ctx, st)
	case overlap:
		return s.overlap(ctx, st)
	case wake:
		return s.wake(ctx, st)
	default:
		svc := s.services[st.at]
		s.now = s.now.Add(st.leap)
		s.note("%s does what it does in the background, %s later", svc.Name, st.leap)
		s.databases[s.of[st.at]].dirty = true
		if err := svc.Background[st.with](ctx, s.now); err != nil {
			return true, fmt.Errorf("%s, in the background: %w", svc.Name, err)
		}
		return true, nil
	}
}

func (s *simulation) note(format string, args ...any) {
	s.events = append(s.events, fmt.Sprintf(format, args...))
}

func (s *simulation) input(ctx context.Context, st step) (did bool, err error) {
	for i, in := range s.inputs {
		switch {
		case s.done[i]:
		case in.Do == nil && in.Record.Topic == "": // left out
			s.done[i] = true
		default:
			s.done[i] = true
			name := in.Name
			if in.Record.Topic != "" {
				records := []broker.Record{in.Record}
				if st.fate == again {
					records, name = append(records, in.Record), name+", twice"
				}
				s.kafka.Produce(ctx, records)
			}
			s.note("%s", name)
			if in.Do != nil {
				if err := in.Do(ctx, &World{sim: s}); err != nil {
					return true, fmt.Errorf("%s: %w", in.Name, err)
				}
			}
			return true, nil
		}
	}
	return false, nil
}

func (s *simulation) relay(ctx context.Context, st step) (did bool, err error) {
	d := s.databases[st.at]
	before := len(s.kafka.produced)
	if err := d.relay.Step(ctx, st.n); err != nil {
		return true, fmt.Errorf("relay of %s: %w", d.name, err)
	}
	published := s.kafka.produced[before:]
	d.dirty, d.sent = len(published) == st.n, len(published) > 0
	if len(published) == 0 {
		return false, nil
	}
	crashed := ""
	if st.fate == again {
		d.relay.Crash()
		d.dirty = true
		crashed = ", and its relay crashes before it has taken them out of the outbox"
	}
	s.note("%s publishes %s%s", d.name, s.kafka.list(published), crashed)
	return true, nil
}

func (s *simulation) poll(ctx context.Context, st step) (did bool, err error) {
	g := s.groups[st.at]
	batch := g.poll(s.kafka, st.n, st.mix, false, nil)
	if len(batch) == 0 {
		return false, nil
	}
	name, records := g.member.Group(), s.kafka.list(batch)
	switch st.fate {
	case replaced:
		s.note("%s reads %s, is taken for dead and replaced", name, records)
		g.zombies = append(g.zombies, zombie{g.member, batch})
		return true, s.replace(g)
	case crashBefore:
		s.note("%s handles %s and crashes before it commits", name, records)
		if err := s.crash(ctx, g, batch); err != nil {
			return true, err
		}
		return true, s.replace(g)
	}
	if err := s.handle(ctx, g.member, g, batch); err != nil {
		return true, err
	}
	switch st.fate {
	case crashAfter:
		s.note("%s handles %s, commits, and crashes before it tells Kafka", name, records)
		return true, s.replace(g)
	case uncommitted:
		s.note("%s handles %s and has not told Kafka yet", name, records)
	default:
		s.note("%s handles %s", name, records)
		g.commit()
	}
	return true, nil
}

// handle has a member handle a batch.
func (s *simulation) handle(ctx context.Context, m *saga.Member, g *group, batch []broker.Record) error {
	s.databases[s.of[g.service]].dirty = true
	if m == g.member && !g.assigned {
		g.assigned = true
		if err := m.Assign(ctx, g.partitions()...); err != nil {
			return fmt.Errorf("%s gets its partitions: %w", m.Group(), err)
		}
	}
	if err := m.Handle(ctx, batch...); err != nil {
		return fmt.Errorf("%s handles %s: %w", m.Group(), s.kafka.list(batch), err)
	}
	return nil
}

// crash has a member handle a batch up to the commit.
func (s *simulation) crash(ctx context.Context, g *group, batch []broker.Record) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := s.handle((&fault{crash: cancel}).in(ctx), g.member, g, batch)
	if ctx.Err() != nil {
		return nil
	}
	return err // there was nothing to commit, or it went wrong before
}

func (s *simulation) wake(ctx context.Context, st step) (did bool, err error) {
	g := s.groups[st.at]
	if len(g.zombies) == 0 {
		return false, nil
	}
	z := g.zombies[0]
	g.zombies = g.zombies[1:]
	s.note("%s's old member, which was replaced, handles %s", z.member.Group(), s.kafka.list(z.batch))
	return true, s.handle(ctx, z.member, g, z.batch)
}

// overlap stops one transaction at its commit, until another has come as far as it can.
func (s *simulation) overlap(ctx context.Context, st step) (did bool, err error) {
	g, other := s.groups[st.at], s.groups[st.with]
	peers := st.with == st.at && st.fate != replaced
	first := g.poll(s.kafka, st.n, st.mix, peers, nil) // peers have different partitions
	if len(first) == 0 {
		return false, nil
	}
	member, how := g.member, "while another member"
	switch {
	case st.fate == replaced:
		how = "as a member that was replaced, while its successor"
		err = s.replace(g)
	case peers:
		var members []*saga.Member
		if members, err = s.members(g.service); err == nil {
			member = members[g.place]
		}
	}
	if err != nil {
		return false, err
	}
	var without []broker.Record
	if peers {
		without = first
	}
	second := other.poll(s.kafka, st.n, st.mix, false, without)
	if len(second) == 0 {
		s.note("%s handles %s", g.member.Group(), s.kafka.list(first))
		return true, s.handle(ctx, member, g, first)
	}
	if st.with != st.at {
		how = "while " + other.member.Group()
	}
	s.note("%s handles %s, %s handles %s", g.member.Group(), s.kafka.list(first), how, s.kafka.list(second))
	s.databases[s.of[g.service]].dirty = true
	if err := s.both(ctx, g, func(ctx context.Context) error { return member.Handle(ctx, first...) },
		func(ctx context.Context) error { return other.member.Handle(ctx, second...) }); err != nil {
		return true, fmt.Errorf("%s handles %s, %s handles %s: %w", g.member.Group(), s.kafka.list(first), how, s.kafka.list(second), err)
	}
	g.commit()
	other.commit()
	return true, nil
}

// both runs two transactions. The first waits at its commit until the second is done, or waits for the first.
func (s *simulation) both(ctx context.Context, g *group, first, second func(ctx context.Context) error) error {
	f := &fault{reached: make(chan struct{}), release: make(chan struct{})}
	one, two := make(chan error, 1), make(chan error, 1)
	go func() { one <- first(f.in(ctx)) }()
	var errs []error
	select {
	case <-f.reached:
	case err := <-one:
		errs = append(errs, err)
	}
	go func() { two <- second(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for released := false; len(errs) < 2; {
		select {
		case err := <-one:
			errs = append(errs, err)
		case err := <-two:
			errs = append(errs, err)
			if !released {
				released = true
				close(f.release)
			}
		case <-tick.C:
			if released {
				continue
			}
			if blocked, err := s.databases[s.of[g.service]].blocked(ctx); blocked || err != nil {
				released = true
				close(f.release)
			}
		}
	}
	return errors.Join(errs...)
}

// blocked tells whether somebody waits for a lock.
func (d *database) blocked(ctx context.Context) (yes bool, err error) {
	err = d.look.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&yes)
	return yes, err
}
