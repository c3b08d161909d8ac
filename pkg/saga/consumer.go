package saga

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
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

	MaxBatch int                // messages in one transaction; default 500
	Attempts int                // of a message whose handler fails, before it is a dead letter; default 6
	Backoff  time.Duration      // before the second attempt, doubling; default 100 ms
	Commit   time.Duration      // how long a handled offset may wait for its commit to Kafka; default 250 ms
	Finish   time.Duration      // how long a batch in hand may go on after the stop; default 4 s
	Timeout  time.Duration      // of one transaction; default 30 s
	Group    broker.GroupConfig // timings of the group membership; Group, Topics and Log are filled in
}

func (c *Config) defaults() {
	c.Backoff = cmp.Or(c.Backoff, 100*time.Millisecond)
	c.Commit = cmp.Or(c.Commit, 250*time.Millisecond)
	c.Finish = cmp.Or(c.Finish, 4*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.MaxBatch = cmp.Or(c.MaxBatch, 500)
	c.Attempts = cmp.Or(c.Attempts, 6)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
}

// Run consumes what the service's routes react to until ctx ends, each consumer group on its own. At the end it finishes
// the batches in hand, commits and leaves the groups. Faults of Kafka or the database are waited out;
// the only errors are the service's own wrong declarations.
func Run(ctx context.Context, svc Service, cfg Config) error {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		return err
	}
	var running errgroup.Group
	for name, routes := range groups {
		c := newConsumer(svc.Name, name, routes, cfg)
		group := cfg.Group
		group.Group, group.Log = name, cfg.Log
		if cfg.Health != nil {
			group.State = cfg.Health.heard
		}
		for _, r := range routes {
			group.Topics = append(group.Topics, r.topic)
		}
		running.Go(func() error { return cfg.Broker.Consume(ctx, group, c.session) })
	}
	return running.Wait()
}

// consumer is one group's member: a loop that polls, transacts and commits, one batch at a time. Several transactions
// of one member at once would have to agree on the order of keys; more instances of the service do it by partition.
type consumer struct {
	Config
	executor
}

func newConsumer(service, group string, routes []Route, cfg Config) *consumer {
	return &consumer{
		Config:   cfg,
		executor: executor{service: service, group: group, routes: routes, db: cfg.DB, relay: cfg.Relay, log: cfg.Log, metrics: cfg.Metrics},
	}
}

// errStopped says that the generation ended before a batch could be handled: its messages will be delivered again.
var errStopped = errors.New("stopped")

// session handles the member's partitions.
func (c *consumer) session(ctx context.Context, s *broker.Session) {
	c.Metrics.lag.set(c.group, s)
	defer c.Metrics.lag.drop(c.group)
	work, cancel := outlive(ctx, c.Finish)
	defer cancel()

	p := newProgress()
	lanes := newLanes(c.Backoff)
	commits := newCommitter(func(offsets map[broker.TopicPartition]int64) bool { return c.commit(s, offsets) })
	defer func() {
		commits.wait()
		if commits.again() {
			p.undone()
		}
		c.commit(s, p.take(lanes))
		c.Metrics.parked.WithLabelValues(c.group).Set(0)
	}()
	for {
		polled, err := c.poll(ctx, s, p, lanes, commits)
		if err != nil {
			return
		}
		if len(polled.Leaving) > 0 {
			commits.wait()
			if commits.again() {
				p.undone()
			}
			c.commit(s, p.take(lanes))
			p.drop(polled.Leaving)
			lanes.drop(polled.Leaving)
		}
		records := polled.Records
		c.hasten(s, p, records, lanes)
		items := make([]*item, len(records))
		for i := range records {
			items[i] = c.item(records[i])
		}
		if err := c.batch(ctx, work, items, lanes); err != nil {
			return
		}
		p.handled(records)
		if err := c.retryDue(ctx, work, lanes); err != nil {
			return
		}
		c.Metrics.parked.WithLabelValues(c.group).Set(float64(lanes.size()))
		if commits.again() {
			p.undone()
		}
		if p.due(c.Commit) && commits.idle() {
			commits.start(p.take(lanes))
		}
	}
}

// commitGap is when to look again whether a commit that takes long has ended.
const commitGap = 20 * time.Millisecond

// poll waits for messages, but no longer than until something else is due. It returns none when that comes first.
func (c *consumer) poll(ctx context.Context, s *broker.Session, p *progress, lanes *lanes, commits *committer) (broker.Polled, error) {
	until, wait := lanes.next()
	at, dirty := p.commitAt(c.Commit)
	if soon := time.Now().Add(commitGap); !commits.idle() && (!dirty || at.Before(soon)) {
		at, dirty = soon, true
	}
	if dirty && (!wait || at.Before(until)) {
		until, wait = at, true
	}
	limit := c.MaxBatch
	if lanes.size() >= maxParked {
		limit = 0 // enough waits in memory; the partitions wait in Kafka
	}
	pollCtx := ctx
	if wait {
		var cancel context.CancelFunc
		pollCtx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	polled, err := s.Poll(pollCtx, limit)
	if err != nil && ctx.Err() == nil {
		return broker.Polled{}, nil // something is due
	}
	return polled, err
}

// batch handles items in one transaction, or, if that fails, each alone. What fails alone goes to the lanes.
// It returns errStopped when the generation ended first.
func (c *consumer) batch(ctx, work context.Context, items []*item, lanes *lanes) error {
	free := items[:0:0]
	for _, it := range items {
		if !lanes.follow(it) {
			free = append(free, it)
		}
	}
	if len(free) == 0 {
		return nil
	}
	err := c.persist(ctx, work, free, false)
	if err == nil || errors.Is(err, errStopped) {
		return err
	}
	c.Metrics.retries.WithLabelValues(c.group, "batch").Inc()
	c.Log.Warn("batch failed; handling its messages one by one", "group", c.group, "messages", len(free), "error", err)
	for _, it := range free {
		if lanes.follow(it) {
			continue
		}
		// One that was handled before can fail, too: look for it first.
		if err := c.persist(ctx, work, []*item{it}, true); err != nil {
			if errors.Is(err, errStopped) {
				return err
			}
			if err := c.failed(ctx, work, it, err, lanes); err != nil {
				return err
			}
		}
	}
	return nil
}

// failed decides what becomes of a message whose handler failed: another try later, or the dead letter topic.
func (c *consumer) failed(ctx, work context.Context, it *item, err error, lanes *lanes) error {
	it.attempts++
	if !permanent(err) && it.attempts < c.Attempts {
		c.Metrics.retries.WithLabelValues(c.group, "message").Inc()
		c.Log.WarnContext(withTrace(work, it.meta), "message failed; trying again", "group", c.group, "topic", it.record.Topic,
			"key", it.meta.Key, "attempt", it.attempts, "error", err)
		lanes.park(it)
		return nil
	}
	it.dead = err
	return c.persist(ctx, work, []*item{it}, true) // of a dead letter nothing can fail but the infrastructure
}

// retryDue tries the messages whose time has come, and those of their keys behind them.
func (c *consumer) retryDue(ctx, work context.Context, lanes *lanes) error {
	for _, key := range lanes.due(time.Now()) {
		for it := lanes.take(key); it != nil; it = lanes.take(key) {
			err := c.persist(ctx, work, []*item{it}, true)
			if errors.Is(err, errStopped) {
				return err
			}
			if err != nil {
				if err := c.failed(ctx, work, it, err, lanes); err != nil {
					return err
				}
			}
			if lanes.waits(key) {
				break
			}
		}
	}
	return nil
}

// persist runs the transaction until it passes or fails for a reason of the messages' own. Faults of the infrastructure
// are tried again for as long as the generation lasts: the partitions wait. So many messages that their time is over are
// none of these: fewer may do. look: some may have been handled before.
func (c *consumer) persist(ctx, work context.Context, items []*item, look bool) error {
	wait := backoff.NewExponentialBackOff() // jittered
	wait.InitialInterval, wait.MaxInterval = 20*time.Millisecond, 2*time.Second
	for {
		attempt, cancel := context.WithTimeout(work, c.Timeout)
		err := c.transact(attempt, items, look)
		tooMuch := len(items) > 1 && errors.Is(attempt.Err(), context.DeadlineExceeded)
		cancel()
		if err == nil {
			return nil
		}
		if !pg.Transient(err) {
			return err
		}
		if ctx.Err() != nil {
			return errStopped
		}
		if tooMuch {
			return err
		}
		c.Metrics.retries.WithLabelValues(c.group, "fault").Inc()
		c.Log.Warn("infrastructure fault; trying the batch again", "group", c.group, "messages", len(items), "error", err)
		select {
		case <-ctx.Done():
			return errStopped
		case <-time.After(wait.NextBackOff()):
		}
	}
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

// Deliver hands records to the service's consumers without Kafka, as one poll, and returns when each has been handled or
// buried: for tests, and for tools that replay. Records of a topic that a group has no route for are not its.
func Deliver(ctx context.Context, svc Service, cfg Config, records ...broker.Record) error {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		return err
	}
	for name, routes := range groups {
		c := newConsumer(svc.Name, name, routes, cfg)
		lanes := newLanes(c.Backoff)
		var items []*item
		for _, r := range records {
			if c.route(r.Topic) >= 0 {
				items = append(items, c.item(r))
			}
		}
		if err := c.batch(ctx, ctx, items, lanes); err != nil {
			return err
		}
		for lanes.size() > 0 {
			at, _ := lanes.next()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Until(at)):
			}
			if err := c.retryDue(ctx, ctx, lanes); err != nil {
				return err
			}
		}
	}
	return nil
}
