package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// Config is what a service's consumers run with. Zero values mean the defaults.
type Config struct {
	DB      pg.Beginner
	Broker  *broker.Client
	Relay   *outbox.Relay // takes over what handlers emit; nil: the events wait in the outbox
	Metrics *Metrics      // nil: not registered anywhere
	Health  *Health       // is told how the groups are doing; nil: nobody
	Log     *slog.Logger

	MaxBatch        int           // messages in one transaction; default 500
	Attempts        int           // of a message whose handler fails, before it is a dead letter; default 6
	Followers       Followers     // what becomes of those that wait behind a message that dies; default [TryOnce]
	MaxWaiting      int           // messages that wait in memory for another try; more wait in the database; default 5000
	MaxWaitingBytes int           // theirs; default 8 MiB
	Backoff         time.Duration // before the second attempt, doubling; default 100 ms
	Commit          time.Duration // how long a handled offset may wait for its commit to Kafka; default 250 ms
	Finish          time.Duration // how long a batch in hand may go on after the stop; default 4 s
	Timeout         time.Duration // of one transaction; default 30 s
	// InboxRetention is how long the inbox remembers at least; default 7 days. What is older and below the group's
	// floor was handled.
	InboxRetention time.Duration
	Group          broker.GroupConfig // timings of the group membership; Group, Topics and Log are filled in
}

func (c *Config) defaults() {
	c.Backoff = cmp.Or(c.Backoff, 100*time.Millisecond)
	c.Commit = cmp.Or(c.Commit, 250*time.Millisecond)
	c.Finish = cmp.Or(c.Finish, 4*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.MaxBatch = cmp.Or(c.MaxBatch, 500)
	c.MaxWaiting = cmp.Or(c.MaxWaiting, 5000)
	c.MaxWaitingBytes = cmp.Or(c.MaxWaitingBytes, 8<<20)
	c.Attempts = cmp.Or(c.Attempts, 6)
	c.InboxRetention = cmp.Or(c.InboxRetention, 7*24*time.Hour)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
}

// check says which part is missing that nothing works without. A nil *pgxpool.Pool is none, too.
func (c *Config) check() error {
	if pool, ok := c.DB.(*pgxpool.Pool); c.DB == nil || ok && pool == nil {
		return errors.New("saga.Config has no DB: give it the pool of the service's own database, from pg.Open or app.Runtime")
	}
	return nil
}

// Followers says what becomes of the messages that wait behind one of their key when that becomes a dead letter.
type Followers int

// The ways to treat followers.
const (
	TryOnce      Followers = iota // each has one attempt, in order, and is buried when it fails
	BuryWithHead                  // they become dead letters, too, in order, without an attempt
)

// Run consumes what the service's routes react to until ctx ends, each consumer group on its own. At the end it
// finishes the batches in hand, commits and leaves the groups. Faults of Kafka or the database are waited out; the only
// errors are the service's own wrong declarations, and a Config without a database or a broker.
func Run(ctx context.Context, svc Service, cfg Config) error {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		return err
	}
	if err := cfg.check(); err != nil {
		return fmt.Errorf("run %s: %w", svc.Name, err)
	}
	if cfg.Broker == nil {
		return fmt.Errorf("run %s: saga.Config has no Broker: give it a client of the Kafka cluster, from broker.Open", svc.Name)
	}
	var running errgroup.Group
	for name, routes := range groups {
		c := newConsumer(svc.Name, name, routes, cfg)
		group := cfg.Group
		group.Group, group.Log = name, cfg.Log
		group.Start, group.Floor, group.Truncated = routes[0].start, c.floor, c.truncated
		if cfg.Health != nil {
			group.State = cfg.Health.observe
		}
		for _, r := range routes {
			group.Topics = append(group.Topics, r.topic)
		}
		running.Go(func() error { return cfg.Broker.Consume(ctx, group, c.member) })
	}
	return running.Wait()
}

// consumer is one group's member: a loop that polls, transacts and commits, one batch at a time. Several transactions
// of one member at once would have to agree on the order of keys; more instances of the service do it by partition.
type consumer struct {
	Config
	executor
	quiet quiet.Log
}

func newConsumer(service, group string, routes []Route, cfg Config) *consumer {
	return &consumer{
		Config: cfg,
		executor: executor{service: service, group: group, routes: routes, db: cfg.DB, relay: cfg.Relay, log: cfg.Log, metrics: cfg.Metrics,
			past: past{retention: cfg.InboxRetention}},
	}
}

// session is what a consumer keeps while it is a member: how far it is, and what waits.
type session struct {
	*consumer
	lanes    *lanes
	progress *progress
	known    map[broker.TopicPartition]bool // partitions whose messages in the database are known
	wary     int                            // batches to go on carefully, since one failed
}

func (c *consumer) newSession() *session {
	return &session{consumer: c, lanes: newLanes(&c.Config), progress: newProgress(), known: map[broker.TopicPartition]bool{}}
}

// member handles the partitions that s has, until ctx ends.
func (c *consumer) member(ctx context.Context, s *broker.Session) {
	c.Metrics.lag.set(c.group, s)
	defer c.Metrics.lag.drop(c.group)
	work, cancel := outlive(ctx, c.Finish)
	defer cancel()

	h := c.newSession()
	commits := newCommitter(func(offsets map[broker.TopicPartition]int64) bool { return c.commit(s, offsets) })
	defer func() {
		commits.wait()
		if commits.again() {
			h.progress.undone()
		}
		c.commit(s, h.progress.take(h.lanes))
		c.Metrics.parked.WithLabelValues(c.group).Set(0)
		c.Metrics.parkedRows.WithLabelValues(c.group).Set(0)
	}()
	for {
		polled, err := h.poll(ctx, s, commits)
		if err != nil {
			return
		}
		if err := h.adopt(ctx, work, polled.Gained); err != nil { // those without new messages may have some in the database
			return
		}
		c.hasten(s, h.progress, polled.Records, h.lanes)
		if err := h.handle(ctx, work, polled.Records); err != nil {
			return
		}
		if len(polled.Leaving) > 0 {
			commits.wait()
			if commits.again() {
				h.progress.undone()
			}
			c.commit(s, h.progress.take(h.lanes))
			h.forget(polled.Leaving)
			continue
		}
		c.Metrics.parked.WithLabelValues(c.group).Set(float64(h.lanes.count))
		c.Metrics.parkedRows.WithLabelValues(c.group).Set(float64(h.lanes.rows))
		if commits.again() {
			h.progress.undone()
		}
		if h.progress.due(c.Commit) && commits.idle() {
			commits.start(h.progress.take(h.lanes))
		}
	}
}

// handle handles the records of a poll and what is due. Each of the records was handled, or waits, when it returns nil.
func (h *session) handle(ctx, work context.Context, records []broker.Record) error {
	items := make([]*item, len(records))
	var unknown []broker.TopicPartition
	for i := range records {
		items[i] = h.item(records[i])
		if tp := items[i].partition(); !h.known[tp] {
			unknown = append(unknown, tp)
		}
	}
	if err := h.adopt(ctx, work, unknown); err != nil {
		return err
	}
	items, err := h.mine(ctx, work, items)
	if err != nil {
		return err
	}
	if err := h.batch(ctx, work, items); err != nil {
		return err
	}
	h.progress.handled(records)
	return h.retryDue(ctx, work)
}

// forget drops what is kept of partitions that are another member's from now on.
func (h *session) forget(leaving []broker.TopicPartition) {
	gone := make(map[broker.TopicPartition]bool, len(leaving))
	for _, tp := range leaving {
		gone[tp] = true
		delete(h.known, tp)
	}
	h.progress.forget(gone)
	h.lanes.forget(gone)
}

// commitGap is when to look again whether a commit that takes long has ended.
const commitGap = 20 * time.Millisecond

// poll waits for messages, but no longer than until something else is due. It returns none when that comes first.
func (h *session) poll(ctx context.Context, s *broker.Session, commits *committer) (broker.Polled, error) {
	until, wait := h.lanes.next()
	if soon := time.Now().Add(time.Millisecond); wait && until.Before(soon) {
		until = soon // what is there already comes along
	}
	at, dirty := h.progress.commitAt(h.Commit)
	if soon := time.Now().Add(commitGap); !commits.idle() && (!dirty || at.Before(soon)) {
		at, dirty = soon, true
	}
	if dirty && (!wait || at.Before(until)) {
		until, wait = at, true
	}
	pollCtx := ctx
	if wait {
		var cancel context.CancelFunc
		pollCtx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	polled, err := s.Poll(pollCtx, h.MaxBatch)
	if err != nil && ctx.Err() == nil {
		return broker.Polled{}, nil // something is due
	}
	return polled, err
}

func (c *consumer) commit(s *broker.Session, offsets map[broker.TopicPartition]int64) bool {
	err := s.Commit(offsets)
	if err != nil {
		c.Log.Debug("offsets not committed; the messages will come again and be recognised", "group", c.group, "error", err)
	}
	return err == nil
}

// outlive gives a context that ends grace after ctx does: time to finish what is in hand.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-out.Done():
		case <-time.After(grace):
			cancel()
		}
	})
	return out, func() { stop(); cancel() }
}
