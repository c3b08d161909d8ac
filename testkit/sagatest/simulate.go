package sagatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/saga"
)

// historyTimeout bounds one history, for handlers that hang.
const historyTimeout = time.Minute

// newRand is random numbers that follow from a seed.
func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x636f6e7665726765)) } //nolint:gosec // to be repeated, not to be secret

// simulation runs histories, one after the other, on databases of its own.
type simulation struct {
	services  []Simulated
	messages  Messages
	invariant Invariant
	databases []*database
	of        []int // each service's database
	metrics   *saga.Metrics

	*history
}

// history is what one history has changed, in memory.
type history struct {
	kafka  *kafka
	groups []*group
	inputs []Input
	done   []bool // inputs
	now    time.Time
	events []string // for the report
}

// database is one that services share, or that one has for itself.
type database struct {
	name    string
	db      *pgxpool.Pool // for the engine: faults reach its transactions
	look    *pgxpool.Pool
	initial *initial
	relay   *outbox.Manual
	dirty   bool // something was committed since the outbox was found empty
	sent    bool // what was published is still in the outbox
}

// Produce, Ends and Partitions pass on to the topics of the history that runs: a relay outlives it.
func (s *simulation) Produce(ctx context.Context, records []broker.Record) []error {
	return s.kafka.Produce(ctx, records)
}

// Ends is kafka's.
func (s *simulation) Ends(ctx context.Context, epochs map[broker.TopicPartition]int32) (map[broker.TopicPartition]broker.End, error) {
	return s.kafka.Ends(ctx, epochs)
}

// Partitions is kafka's.
func (s *simulation) Partitions(ctx context.Context, topic string) (int, error) {
	return s.kafka.Partitions(ctx, topic)
}

func newSimulation(t testing.TB, services []Simulated, messages Messages, invariant Invariant) *simulation {
	t.Helper()
	s := &simulation{services: services, messages: messages, invariant: invariant, metrics: saga.NewMetrics(nil)}
	places := map[*pgxpool.Pool]int{}
	for _, svc := range services {
		place, shared := places[svc.DB]
		if !shared {
			place = len(s.databases)
			places[svc.DB] = place
			s.databases = append(s.databases, s.open(t, svc))
		}
		s.of = append(s.of, place)
	}
	return s
}

// open prepares a service's database.
func (s *simulation) open(t testing.TB, svc Simulated) *database {
	t.Helper()
	ctx := t.Context()
	if svc.DB == nil {
		t.Fatalf("%s has no database", svc.Name)
	}
	d := &database{name: svc.Name, look: svc.DB}
	cfg := svc.DB.Config()
	cfg.ConnConfig.Tracer = tracer{}
	var err error
	if d.db, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		t.Fatalf("open the database of %s: %v", svc.Name, err)
	}
	t.Cleanup(d.db.Close)
	if d.initial, err = newInitial(ctx, svc.DB); err != nil {
		t.Fatalf("%s: %v", svc.Name, err)
	}
	if d.relay, err = outbox.NewRelay(d.db, s, outbox.Config{Keep: -1}).Manual(ctx); err != nil {
		t.Fatalf("relay of %s: %v", svc.Name, err)
	}
	t.Cleanup(d.relay.Close)
	return d
}

// try draws the history of a seed and runs it. A fault is of the simulation, and not of what it simulates.
func (s *simulation) try(ctx context.Context, seed uint64) (failure *Failure, fault error) {
	var steps []step
	err := s.run(ctx, seed, func(ctx context.Context) error {
		r := newRand(seed)
		odds := s.drawOdds(r)
		for range 8 + r.IntN(12*len(s.inputs)+1) {
			st, possible := s.draw(r, odds)
			if !possible {
				return nil
			}
			steps = append(steps, st)
			if _, err := s.do(ctx, st); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("seed %d: %w", seed, ctx.Err())
	}
	if err == nil {
		return nil, nil
	}
	return s.shrink(ctx, seed, plan{steps, make([]bool, len(s.inputs))}, err), nil
}

// run is one history: act is what is special about it, and whatever is left then happens as it should. Inputs that are
// left out never happen.
func (s *simulation) run(ctx context.Context, seed uint64, act func(ctx context.Context) error, left []bool) error {
	ctx, cancel := context.WithTimeout(ctx, historyTimeout)
	defer cancel()
	if err := s.begin(ctx, seed, left); err != nil {
		return err
	}
	if err := act(ctx); err != nil {
		return err
	}
	s.events = append(s.events, rest)
	if err := s.finish(ctx); err != nil {
		return err
	}
	if err := s.kafka.deadLetter(); err != nil {
		return err
	}
	if err := s.invariant(ctx, &World{sim: s}); err != nil {
		return fmt.Errorf("the invariant does not hold: %w", err)
	}
	return nil
}

// rest stands in a history's events for the end of what is special about it.
const rest = ""

func (s *simulation) begin(ctx context.Context, seed uint64, left []bool) error {
	inputs := s.messages(newRand(^seed))
	s.history = &history{kafka: newKafka(), inputs: inputs, done: make([]bool, len(inputs)), now: time.Now()}
	for i, out := range left {
		if out {
			s.inputs[i] = Input{}
		}
	}
	for _, d := range s.databases {
		if err := d.initial.reset(ctx); err != nil {
			return err
		}
		d.relay.Crash()
		d.dirty, d.sent = false, false
	}
	for i := range s.services {
		members, err := s.members(i)
		if err != nil {
			return err
		}
		for place, m := range members {
			g := &group{service: i, place: place, member: m, committed: map[broker.TopicPartition]int64{}}
			g.rewind()
			s.groups = append(s.groups, g)
		}
	}
	return nil
}

// members makes new members of all of a service's groups.
func (s *simulation) members(service int) ([]*saga.Member, error) {
	return saga.Members(s.services[service].Service, saga.Config{
		DB: s.databases[s.of[service]].db, Metrics: s.metrics, Attempts: 3, Backoff: time.Nanosecond,
	})
}

// replace gives the group a new member, which begins where the old one's commits ended.
func (s *simulation) replace(g *group) error {
	members, err := s.members(g.service)
	if err != nil {
		return err
	}
	g.member, g.assigned = members[g.place], false
	g.rewind()
	return nil
}

// most is more than there is.
const most = 10_000

// finish has everything happen that is left, one input after the other, in order and without faults, until there is
// nothing to do.
func (s *simulation) finish(ctx context.Context) error {
	for _, g := range s.groups {
		for range g.zombies {
			if _, err := s.do(ctx, step{kind: wake, at: s.index(g)}); err != nil {
				return err
			}
		}
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	for {
		did, err := s.do(ctx, step{kind: input})
		if err != nil {
			return err
		}
		if !did {
			break
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
	}
	return s.idle(ctx)
}

// idle calls what runs in the background until nothing has come of it for a while.
func (s *simulation) idle(ctx context.Context) error {
	for quiet, calls := 0, 0; quiet < 2; quiet++ {
		if calls++; calls > maxRounds {
			return errors.New("what runs in the background does not come to rest")
		}
		published, events := len(s.kafka.produced), len(s.events)
		for _, d := range s.databases {
			d.dirty = d.dirty || d.sent || quiet == 0 // an input may have written to any
		}
		for i, svc := range s.services {
			for n := range svc.Background {
				if _, err := s.do(ctx, step{kind: background, at: i, with: n, leap: time.Hour}); err != nil {
					return err
				}
			}
		}
		if err := s.settle(ctx); err != nil {
			return err
		}
		if len(s.kafka.produced) > published {
			quiet = -1
		} else {
			s.events = s.events[:events] // nothing came of it
		}
	}
	return nil
}

// maxRounds is how often events may cause events.
const maxRounds = 200

// settle delivers what there is, and what comes of it.
func (s *simulation) settle(ctx context.Context) error {
	for range maxRounds {
		moved := false
		for i, d := range s.databases {
			for d.dirty {
				if _, err := s.do(ctx, step{kind: relay, at: i, n: most}); err != nil {
					return err
				}
			}
		}
		for i := range s.groups {
			did, err := s.do(ctx, step{kind: poll, at: i, n: most})
			if err != nil {
				return err
			}
			moved = moved || did
		}
		if !moved {
			return nil
		}
	}
	return errors.New("the services do not come to rest: each event causes another")
}

func (s *simulation) index(g *group) int {
	for i := range s.groups {
		if s.groups[i] == g {
			return i
		}
	}
	return -1
}
