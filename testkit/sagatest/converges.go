package sagatest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// Simulated is a service in a simulation.
type Simulated struct {
	saga.Service
	// DB is the service's database, which the simulation has for itself: before each history it makes it again what it
	// was at first.
	DB *pgxpool.Pool
	// Background is what the service does without a message: sweeps, retries, timers. Each is called now and then, and
	// at the end until nothing comes of it. Time is the simulation's: it begins now and moves in leaps.
	Background []func(ctx context.Context, now time.Time) error
}

// Input is something that happens to the services from outside: a record in a topic, or a request.
type Input struct {
	Name   string                                    // for the report
	Record broker.Record                             // is published; without a topic: none
	Do     func(ctx context.Context, w *World) error // is called, to have a service's own code do something; nil: nothing
	About  any                                       // what the invariant wants to know of it
}

// Message is the input that publishes an event as another system would.
func Message[T any](t testing.TB, topic saga.Topic[T], key string, data T) Input {
	t.Helper()
	r := Record(t, saga.New(context.Background(), topic, key, data))
	return Input{Name: fmt.Sprintf("somebody publishes %s %s", topic.Name(), key), Record: r, About: data}
}

// World is what inputs and invariants see: the databases, and what has happened.
type World struct{ sim *simulation }

// DB is a service's database.
func (w *World) DB(service string) *pgxpool.Pool {
	for i, s := range w.sim.services {
		if s.Name == service {
			w.sim.databases[w.sim.of[i]].dirty = true
			return s.DB
		}
	}
	panic("there is no service " + service + " in the simulation")
}

// Done are the inputs that took place. An invariant that compares sums adds up these.
func (w *World) Done() []Input {
	var done []Input
	for i, input := range w.sim.inputs {
		if w.sim.done[i] {
			done = append(done, input)
		}
	}
	return done
}

// Published are the events of a topic, in the order in which they came, those that were published twice included.
func (w *World) Published(topic string) []broker.Record { return w.sim.kafka.all(topic) }

// Same compares the single value that a query finds with what it should be.
func Same[T comparable](ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, want T, sql string, args ...any) error {
	var got T
	if err := db.QueryRow(ctx, sql, args...).Scan(&got); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	if got != want {
		return fmt.Errorf("%s: %v, want %v", sql, got, want)
	}
	return nil
}

// What a test says.
type (
	// Services makes services with databases of their own, made by [pgtest.New]. It is called for each of the histories
	// that run at a time. What is in the databases when it returns is there at the beginning of each history.
	Services func(t testing.TB) []Simulated
	// Messages draws the inputs, which take place in this order, from its argument alone.
	Messages func(r *rand.Rand) []Input
	// Invariant is what must hold when everything has come to rest.
	Invariant func(ctx context.Context, w *World) error
)

// Settings choose the histories of a run.
const (
	seedsEnv = "CONVERGE_SIMULATE_SEEDS" // how many; default 100
	seedEnv  = "CONVERGE_SIMULATE_SEED"  // only this one
)

// progressEvery is after how many histories a long run says how far it is.
const progressEvery = 1000

// atOnce is how many histories run at a time: one for each core, and two where one waits for the other's answers.
func atOnce() int { return min(max(2, runtime.GOMAXPROCS(0)), 8) }

// Converges runs services, with their real handlers, transactions, inboxes and outboxes, on real databases, and checks
// that the invariant holds in the end, whatever happened on the way. Kafka is a list in memory. From each seed it draws
// inputs and a history: deliveries of topics and partitions overtake each other (the order within a key stays), come
// twice and late, in batches of any size; members crash before a commit and after it; relays crash between publication
// and deletion; an owner that was replaced handles its last batch late, and transactions of one database overlap. Then
// all that is left is delivered. A message that becomes a dead letter is a failure.
//
// A history that fails is shortened, and reported with its seed, which repeats it. The environment variable
// CONVERGE_SIMULATE_SEEDS says how many seeds are tried (default 100), and CONVERGE_SIMULATE_SEED which one alone.
func Converges(t *testing.T, services Services, messages Messages, invariant Invariant) {
	t.Helper()
	failure, passed := explore(t, services, messages, invariant)
	if failure != nil {
		t.Fatalf("%s\n\nTo repeat it: %s=%d go test -run '^%s$' .", failure, seedEnv, failure.Seed, regexp.QuoteMeta(t.Name()))
	}
	t.Logf("%d histories", passed)
}

// Diverges is [Converges] for services that are broken: it returns the shortened history that shows it, and fails the
// test if there is none. It proves that a guard is needed, and that the invariant notices.
func Diverges(t *testing.T, services Services, messages Messages, invariant Invariant) *Failure {
	t.Helper()
	failure, passed := explore(t, services, messages, invariant)
	if failure == nil {
		t.Fatalf("all of %d histories converge", passed)
	}
	return failure
}

// Failure is a history after which the invariant does not hold.
type Failure struct {
	Seed    uint64
	Err     error    // of the invariant, or what else went wrong
	Inputs  []string // that are needed
	Events  []string // what happened before all that was left was delivered
	Rest    []string // what happened then
	Steps   int      // of the history as it was drawn
	Repeats int      // how many histories were tried to shorten it
}

// String tells the history step by step.
func (f *Failure) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "seed %d: %v\n\nThe shortest history that fails, %d steps of %d that were drawn (%d tries):",
		f.Seed, f.Err, len(f.Events), f.Steps, f.Repeats)
	for i, e := range f.Events {
		fmt.Fprintf(&s, "\n%4d  %s", i+1, e)
	}
	if len(f.Rest) > 0 {
		s.WriteString("\n      then all that is left:")
	}
	for i, e := range f.Rest {
		fmt.Fprintf(&s, "\n%4d  %s", len(f.Events)+i+1, e)
	}
	return s.String()
}

// explore tries seeds until one fails.
func explore(t testing.TB, services Services, messages Messages, invariant Invariant) (*Failure, int64) {
	t.Helper()
	first, last := seeds(t)
	sims := make([]*simulation, min(atOnce(), int(min(last-first+1, 8))))
	for i := range sims {
		sims[i] = newSimulation(t, services(t), messages, invariant)
	}
	began := time.Now()
	var next atomic.Uint64
	next.Store(first)
	var passed atomic.Int64
	found := make([]*Failure, len(sims))
	faults := make([]error, len(sims))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var running sync.WaitGroup
	for i, sim := range sims {
		running.Go(func() {
			for ctx.Err() == nil {
				seed := next.Add(1) - 1
				if seed > last {
					return
				}
				found[i], faults[i] = sim.try(t.Context(), seed)
				if found[i] != nil || faults[i] != nil {
					stop()
					return
				}
				if n := passed.Add(1); n%progressEvery == 0 {
					t.Logf("%d histories, %s", n, time.Since(began).Round(time.Second))
				}
			}
		})
	}
	running.Wait()
	if err := errors.Join(faults...); err != nil {
		t.Fatal(err)
	}
	var failure *Failure
	for _, f := range found {
		if f != nil && (failure == nil || f.Seed < failure.Seed) {
			failure = f
		}
	}
	return failure, passed.Load()
}

// seeds are the first and the last to try.
func seeds(t testing.TB) (first, last uint64) {
	t.Helper()
	for env, use := range map[string]func(n uint64){
		seedsEnv: func(n uint64) { first, last = 1, n },
		seedEnv:  func(n uint64) { first, last = n, n },
	} {
		text := os.Getenv(env)
		if text == "" {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil || n == 0 {
			t.Fatalf("%s=%s is not a number from 1", env, text)
		}
		use(n)
		if env == seedEnv {
			return first, last
		}
	}
	if last == 0 {
		return 1, 100
	}
	return first, last
}
