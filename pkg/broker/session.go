package broker

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"
)

// Session is a member's share of the partitions for one generation. Poll is for one goroutine at a time, and so is Commit.
type Session struct {
	client    *Client
	cfg       GroupConfig
	gen       *kafka.Generation
	positions map[TopicPartition]int64 // of the fetch loop
	out       chan delivery
	pending   []Record
	paused    []chan struct{} // fetch loops that wait for the next Poll
	fetchers  sync.WaitGroup
	fetched   atomic.Bool // something was, since the last fault

	mu        sync.Mutex
	ends      map[TopicPartition]int64
	committed map[TopicPartition]int64
}

func newSession(c *Client, cfg GroupConfig, gen *kafka.Generation) *Session {
	s := &Session{
		client: c, cfg: cfg, gen: gen, positions: map[TopicPartition]int64{},
		out: make(chan delivery), ends: map[TopicPartition]int64{}, committed: map[TopicPartition]int64{},
	}
	for topic, parts := range gen.Assignments {
		for _, p := range parts {
			s.positions[TopicPartition{topic, p.ID}] = p.Offset
		}
	}
	return s
}

// delivery is what one fetch brought. The loop that sent it goes on when more is closed: a fetch that waits until the last
// batch is done brings all that has come in the meantime, where one that is ahead of it brings the first record alone.
type delivery struct {
	records []Record
	more    chan struct{}
}

// Poll returns records of all assigned partitions, at most limit, in order per partition. It waits for the first until
// ctx ends, and takes along what else has arrived.
func (s *Session) Poll(ctx context.Context, limit int) ([]Record, error) {
	if len(s.pending) == 0 {
		for _, more := range s.paused {
			close(more)
		}
		s.paused = s.paused[:0]
		select {
		case d := <-s.out:
			s.take(d)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for len(s.pending) < limit {
		select {
		case d := <-s.out:
			s.take(d)
			continue
		default:
		}
		break
	}
	n := min(limit, len(s.pending))
	batch := s.pending[:n:n]
	s.pending = s.pending[n:]
	return batch, nil
}

func (s *Session) take(d delivery) {
	s.pending = append(s.pending, d.records...)
	s.paused = append(s.paused, d.more)
}

// Commit stores the offset to go on from, by partition. It fails when the generation has ended in the meantime; then the
// records come again, here or at another member.
func (s *Session) Commit(offsets map[TopicPartition]int64) error {
	if len(offsets) == 0 {
		return nil
	}
	byTopic := map[string]map[int]int64{}
	for tp, o := range offsets {
		if byTopic[tp.Topic] == nil {
			byTopic[tp.Topic] = map[int]int64{}
		}
		byTopic[tp.Topic][tp.Partition] = o
	}
	if err := s.gen.CommitOffsets(byTopic); err != nil {
		return fmt.Errorf("commit offsets of %s: %w", s.cfg.Group, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(s.committed, offsets)
	return nil
}

// Lag returns, by partition, how many records the group has yet to commit, as far as this member knows.
func (s *Session) Lag() map[TopicPartition]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lag := make(map[TopicPartition]int64, len(s.ends))
	for tp, end := range s.ends {
		lag[tp] = max(0, end-s.committed[tp])
	}
	return lag
}

// fetchAll fetches the assigned partitions from their leaders until ctx ends: one loop, and one request at a time, per
// broker. When leaders move it starts over with the new ones.
func (s *Session) fetchAll(ctx context.Context) {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 50*time.Millisecond, 2*time.Second
	for ctx.Err() == nil {
		err := s.fetchRound(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.fetched.Swap(false) {
			wait.Reset()
		}
		s.cfg.Log.Warn("fetch waits", "group", s.cfg.Group, "error", err)
		s.client.forget(s.cfg.Topics...)
		select {
		case <-ctx.Done():
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// fetchRound runs the loops until one of them fails; its error ends the others.
func (s *Session) fetchRound(ctx context.Context) error {
	if err := s.resolve(ctx); err != nil {
		return err
	}
	leaders, err := s.client.leadersOf(ctx, s.cfg.Topics...)
	if err != nil {
		return err
	}
	byLeader := map[int]map[TopicPartition]int64{}
	for tp, offset := range s.positions {
		parts := leaders[tp.Topic]
		if tp.Partition >= len(parts) || parts[tp.Partition] < 0 {
			return fmt.Errorf("%s/%d has no leader", tp.Topic, tp.Partition)
		}
		l := parts[tp.Partition]
		if byLeader[l] == nil {
			byLeader[l] = map[TopicPartition]int64{}
		}
		byLeader[l][tp] = offset
	}
	if len(byLeader) == 0 { // more members than partitions: wait for the next generation
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops sync.WaitGroup
	for _, from := range byLeader {
		loops.Go(func() { cancel(s.fetchLoop(ctx, from)) })
	}
	loops.Wait()
	for _, from := range byLeader {
		maps.Copy(s.positions, from)
	}
	return context.Cause(ctx)
}

func (s *Session) fetchLoop(ctx context.Context, from map[TopicPartition]int64) error {
	var session fetchSession
	for {
		f, err := s.client.fetch(ctx, from, s.cfg.MaxWait, &session)
		if err != nil {
			return err
		}
		s.mu.Lock()
		maps.Copy(s.ends, f.end)
		s.mu.Unlock()
		if len(f.records) > 0 {
			d := delivery{f.records, make(chan struct{})}
			select {
			case s.out <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
			maps.Copy(from, f.next)
			select {
			case <-d.more:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		maps.Copy(from, f.next)
		for tp, err := range f.errs {
			if lost(err) {
				s.cfg.Log.Error("records were deleted before they were read; going on at the earliest that is left",
					"group", s.cfg.Group, "topic", tp.Topic, "partition", tp.Partition, "offset", from[tp])
				from[tp] = kafka.FirstOffset
			}
			return fmt.Errorf("fetch %s/%d: %w", tp.Topic, tp.Partition, err)
		}
		s.fetched.Store(true)
	}
}

// resolve turns "from the beginning" into offsets, and notes where each partition stands for Lag.
func (s *Session) resolve(ctx context.Context) error {
	var unknown []TopicPartition
	for tp, offset := range s.positions {
		if offset < 0 {
			unknown = append(unknown, tp)
		}
	}
	if len(unknown) > 0 {
		first, err := s.client.offsets(ctx, earliest, unknown)
		if err != nil {
			return err
		}
		maps.Copy(s.positions, first)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, offset := range s.positions {
		if _, ok := s.committed[tp]; !ok {
			s.committed[tp] = offset
		}
	}
	return nil
}
