package broker

import (
	"cmp"
	"context"
	"log/slog"
	"time"
)

// GroupConfig describes a member of a consumer group. Zero values mean the defaults.
type GroupConfig struct {
	Group      string
	Topics     []string
	InstanceID string // unique in the group: who restarts under it within the session timeout gets its partitions back at once; "": a new member each time
	Log        *slog.Logger

	// Start is where the group begins in a partition of which neither Kafka nor Floor knows how far it was.
	Start StartAt
	// Floor tells how far the group was by the database's knowledge. It is asked where Kafka has no offset of the
	// group. nil: none.
	Floor func(ctx context.Context) (map[TopicPartition]int64, error)
	// Truncated is told when the group's position lies above the end of the partition: its log was cut, or the topic
	// was made anew. The member goes on from an earlier offset once it returns nil, and calls it again later if it
	// fails. nil: nobody.
	Truncated func(ctx context.Context, tp TopicPartition, was, end int64) error
	// State is told when the membership or the topics change, by one goroutine at a time. It must not block. nil:
	// nobody.
	State func(GroupState)

	MaxWait          time.Duration // how long a fetch waits when there is nothing; default 1 s
	SessionTimeout   time.Duration // after this long without a heartbeat others take over; default 6 s, the least that brokers allow by default
	RebalanceTimeout time.Duration // how long a rebalance waits for members to finish their batch; default 20 s
	Heartbeat        time.Duration // also how fast a member learns of a rebalance; default 500 ms
}

// GroupState is how a member is doing.
type GroupState struct {
	Group   string
	Member  bool     // the coordinator knows the member and answers
	Missing []string // topics that the cluster does not know
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

// Consume joins the group and calls work with a [Session] that lasts until ctx ends. It returns when ctx has ended,
// work has returned and the group is left. If work returns before that, the member leaves, joins again and calls work
// with a new session.
//
// A cluster that is away, and a topic that does not exist yet or any more, are waited for and logged: the other topics
// go on.
func (c *Client) Consume(ctx context.Context, cfg GroupConfig, work func(ctx context.Context, s *Session)) error {
	cfg.defaults()
	for ctx.Err() == nil {
		c.consume(ctx, cfg, work)
	}
	return nil
}

// consume is one membership, from the first join to the leave. The member goroutine and the fetch loops outlive ctx:
// they end when work has returned, so that its last commits count.
func (c *Client) consume(ctx context.Context, cfg GroupConfig, work func(ctx context.Context, s *Session)) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := newSession(c, cfg)
	m := newMember(s)
	s.loops.Go(func() { m.run(running) })
	s.loops.Go(func() { s.manage(running) })
	s.loops.Go(func() { s.watchEnds(running) })
	work(ctx, s)
	stop()
	s.loops.Wait()
	m.leave()
}
