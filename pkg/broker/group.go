package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"
)

// GroupConfig describes a member of a consumer group. Zero values mean the defaults.
type GroupConfig struct {
	Group  string
	Topics []string
	Log    *slog.Logger

	MaxWait          time.Duration // how long a fetch waits when there is nothing; default 1 s
	SessionTimeout   time.Duration // after this long without a heartbeat others take over; default 6 s, the least that brokers allow by default
	RebalanceTimeout time.Duration // how long a rebalance waits for members to finish their batch; default 20 s
	Heartbeat        time.Duration // also how fast a member learns of a rebalance; default 500 ms
}

func (g *GroupConfig) defaults() {
	g.MaxWait = cmp.Or(g.MaxWait, time.Second)
	g.SessionTimeout = cmp.Or(g.SessionTimeout, 6*time.Second)
	g.RebalanceTimeout = cmp.Or(g.RebalanceTimeout, 20*time.Second)
	g.Heartbeat = cmp.Or(g.Heartbeat, 500*time.Millisecond)
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
}

// Consume joins the group and calls work with a Session for each generation: each time the group's partitions are
// shared out anew. It returns when ctx ends, after work has returned and the group is left. The session's context ends
// with the generation; work then finishes or abandons what it holds, commits, and returns: the rebalance waits for it.
// If work returns before that, the member leaves and joins again.
//
// A cluster that is away, or a topic that does not exist yet, is waited for and logged.
func (c *Client) Consume(ctx context.Context, cfg GroupConfig, work func(ctx context.Context, s *Session)) error {
	cfg.defaults()
	if !c.awaitTopics(ctx, cfg) {
		return nil
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: cfg.Group, Brokers: c.cfg.Brokers, Dialer: c.dialer, Topics: cfg.Topics,
		// Range gives one member the same partition of every topic: what belongs to one key stays in one place.
		GroupBalancers:    []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
		StartOffset:       kafka.FirstOffset, // LastOffset loses what came before the first commit
		HeartbeatInterval: cfg.Heartbeat, SessionTimeout: cfg.SessionTimeout, RebalanceTimeout: cfg.RebalanceTimeout,
		JoinGroupBackoff:      200 * time.Millisecond,
		Timeout:               3 * time.Second,
		WatchPartitionChanges: true, PartitionWatchInterval: 5 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("consumer group %s: %w", cfg.Group, err)
	}
	defer group.Close() //nolint:errcheck // always nil; it waits for work and leaves the group

	var waits patience
	for {
		gen, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if lasted := waits.worthALine(time.Now()); lasted > 0 && !errors.Is(err, kafka.RebalanceInProgress) {
				cfg.Log.Warn("consumer group waits", "group", cfg.Group, "for", lasted, "error", err)
			}
			continue // the group backs off before it joins again
		}
		waits = patience{}
		s := newSession(c, cfg, gen)
		cfg.Log.Debug("consumer group assigned", "group", cfg.Group, "generation", gen.ID, "partitions", len(s.positions))
		gen.Start(func(ctx context.Context) {
			fetchCtx, stop := context.WithCancel(ctx)
			s.fetchers.Go(func() { s.fetchAll(fetchCtx) })
			work(ctx, s)
			stop()
			s.fetchers.Wait()
		})
	}
}

// awaitTopics waits until the group's topics exist, and returns false when ctx ends first. A group that forms while a topic
// is being created can share out none of its partitions and never learn of them: kafka-go compares partition counts with
// those at the generation's start, not with those that the leader shared out.
func (c *Client) awaitTopics(ctx context.Context, cfg GroupConfig) bool {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	var waits patience
	for {
		_, _, err := c.partitionsOf(ctx, cfg.Topics)
		if err == nil || ctx.Err() != nil {
			return ctx.Err() == nil
		}
		if lasted := waits.worthALine(time.Now()); lasted > 0 {
			cfg.Log.Warn("consumer group waits for its topics", "group", cfg.Group, "for", lasted, "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// patience keeps the log quiet about what passes by itself: a coordinator that moves, a broker that starts.
type patience struct{ since, said time.Time }

// worthALine tells how long it has lasted, every five seconds from the second one on, and otherwise 0.
func (p *patience) worthALine(now time.Time) time.Duration {
	if p.since.IsZero() {
		p.since = now
	}
	if now.Sub(p.since) < 2*time.Second || now.Sub(p.said) < 5*time.Second {
		return 0
	}
	p.said = now
	return now.Sub(p.since).Round(time.Second)
}
