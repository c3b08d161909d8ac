package sagatest

import (
	"context"
	"fmt"
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

// step is one of a history. It says what happens and not to which records, so that it means something without the steps
// before it.
type step struct {
	kind kind
	fate fate
	at   int    // which group, database or service
	with int    // overlap: the other group; background: which function
	n    int    // records or rows, at most
	mix  uint64 // how a poll mixes partitions
	leap time.Duration
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
