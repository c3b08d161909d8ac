package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	cutMargin = 5 * time.Minute    // how far before the last good fetch a log that was cut is read again
	cutOldest = 7 * 24 * time.Hour // and how far back where there was none
)

// resolve finds out where to begin in partitions that are new, and where to go on in those whose position lies outside
// of the log. A partition that cannot be resolved waits alone. It tells whether any was resolved and whether any was
// not.
func (s *Session) resolve(ctx context.Context) (resolved, failed bool) {
	s.mu.Lock()
	now := time.Now()
	var fresh, outside []*share
	for tp, h := range s.held {
		switch {
		case h.leader < 0 || s.going[tp] != nil || h.retry.After(now):
		case h.outside:
			outside = append(outside, h)
		case h.next < 0:
			fresh = append(fresh, h)
		}
	}
	s.mu.Unlock()
	settle := func(h *share, p position, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.later(ctx, h, "position", err)
			failed = true
			return
		}
		resolved = true
		if h.outside {
			s.rewind(h, p, nil, h.epoch)
			return
		}
		h.next = p.next
		if p.epoch >= 0 {
			h.epochs = epochs{{-1, p.epoch}}
		}
		h.committedTo(p.committed)
	}
	if len(fresh) > 0 {
		committed, err := s.client.groupPlaces(ctx, s.cfg.Group, partitionsOfShares(fresh))
		var never []*share
		for _, h := range fresh {
			if at := committed[h.tp]; err != nil || at.offset >= 0 {
				settle(h, position{at.offset, at.offset, at.epoch}, err)
			} else {
				never = append(never, h)
			}
		}
		s.begin(ctx, never, settle)
	}
	for _, h := range outside {
		p, err := s.reenter(ctx, h)
		settle(h, p, err)
	}
	return resolved, failed
}

// position is where to fetch, what counts as committed, and the leader epoch of the record before it.
type position struct {
	next, committed int64
	epoch           int32
}

// at is a position of which no record is known.
func at(offset int64) position { return position{offset, offset, noEpoch} }

func partitionsOfShares(hs []*share) []TopicPartition {
	out := make([]TopicPartition, len(hs))
	for i, h := range hs {
		out[i] = h.tp
	}
	return out
}

// begin finds the first position of partitions in which Kafka has no offset of the group.
func (s *Session) begin(ctx context.Context, hs []*share, settle func(*share, position, error)) {
	if len(hs) == 0 {
		return
	}
	fail := func(err error) {
		for _, h := range hs {
			settle(h, position{}, err)
		}
	}
	log, err := s.client.boundsOf(ctx, partitionsOfShares(hs))
	if err != nil {
		fail(err)
		return
	}
	var floor map[TopicPartition]int64
	if s.cfg.Floor != nil {
		if floor, err = s.cfg.Floor(ctx); err != nil {
			fail(fmt.Errorf("ask how far the group was: %w", err))
			return
		}
	}
	start, err := s.starts(ctx, hs)
	if err != nil {
		fail(err)
		return
	}
	for _, h := range hs {
		b := log[h.tp]
		was, known := floor[h.tp]
		s.mu.Lock()
		anew := s.gone[h.tp.Topic]
		s.mu.Unlock()
		switch {
		case known && (was > b.end || anew):
			err = s.cut(ctx, h.tp, was, b)
			settle(h, at(b.first), err)
		case known:
			settle(h, at(b.within(was)), nil)
		default:
			offset, ok := start[h.tp]
			if !ok {
				offset = b.first
			}
			settle(h, at(offset), nil)
		}
	}
}

// starts is where Start lets the group begin, where that is not the beginning. It is for topics in which the group has
// never been at all: a partition that a topic grows is read whole, and so is a topic that was missing when the member
// came. The first member who asks commits the answer for all partitions of the topic, so that a restart before the
// first commit does not pass what came in between.
func (s *Session) starts(ctx context.Context, hs []*share) (map[TopicPartition]int64, error) {
	if s.cfg.Start == FromBeginning() {
		return nil, nil
	}
	s.mu.Lock()
	gone := maps.Clone(s.gone)
	s.mu.Unlock()
	out := map[TopicPartition]int64{}
	var topics []string
	for _, h := range hs {
		if !gone[h.tp.Topic] && !slices.Contains(topics, h.tp.Topic) {
			topics = append(topics, h.tp.Topic)
		}
	}
	for _, t := range topics {
		tps, _, err := s.client.existing(ctx, []string{t})
		if err != nil {
			return nil, err
		}
		committed, err := s.client.groupOffsets(ctx, s.cfg.Group, tps)
		if err != nil {
			return nil, err
		}
		known := false
		for _, offset := range committed {
			known = known || offset >= 0
		}
		if known {
			continue
		}
		at, err := s.client.startOffsets(ctx, s.cfg.Start, tps)
		if err != nil {
			return nil, err
		}
		if err := s.note(ctx, unmarked(at)); err != nil {
			return nil, err
		}
		maps.Copy(out, at)
	}
	return out, nil
}

// startOffsets resolves a start.
func (c *Client) startOffsets(ctx context.Context, start StartAt, tps []TopicPartition) (map[TopicPartition]int64, error) {
	if start.now {
		return c.offsets(ctx, latest, tps)
	}
	return c.firstSince(ctx, start.time, tps)
}

// firstSince is the first record of each partition that was written at t or later: the end where there is none.
func (c *Client) firstSince(ctx context.Context, t time.Time, tps []TopicPartition) (map[TopicPartition]int64, error) {
	at, err := c.offsets(ctx, since(t), tps)
	if err != nil {
		return nil, err
	}
	ends, err := c.offsets(ctx, latest, tps)
	if err != nil {
		return nil, err
	}
	for tp, offset := range at {
		if offset < 0 {
			at[tp] = ends[tp]
		}
	}
	return at, nil
}

// note commits positions that no record led to.
func (s *Session) note(ctx context.Context, offsets map[TopicPartition]epochOffset) error {
	s.mu.Lock()
	who := s.who
	s.mu.Unlock()
	failed, err := s.coordinator.commit(ctx, who, offsets)
	for tp, e := range failed {
		err = fmt.Errorf("%s/%d: %w", tp.Topic, tp.Partition, e)
	}
	if err != nil {
		return fmt.Errorf("commit where the group begins: %w", err)
	}
	return nil
}

// cut says that a position lies above the end of the log.
func (s *Session) cut(ctx context.Context, tp TopicPartition, was int64, b bounds) error {
	s.cfg.Log.ErrorContext(ctx, "the group was further than the partition reaches: its log was cut, or the topic was made anew",
		"group", s.cfg.Group, "topic", tp.Topic, "partition", tp.Partition, "offset", was, "first", b.first, "end", b.end)
	return s.tellCut(ctx, tp, was, b.end)
}

func (s *Session) tellCut(ctx context.Context, tp TopicPartition, was, end int64) error {
	if s.cfg.Truncated == nil {
		return nil
	}
	if err := s.cfg.Truncated(ctx, tp, was, end); err != nil {
		return fmt.Errorf("tell that the log was cut: %w", err)
	}
	return nil
}

// reenter finds where to go on in a partition in which the position lies outside of the log.
func (s *Session) reenter(ctx context.Context, h *share) (position, error) {
	log, err := s.client.boundsOf(ctx, []TopicPartition{h.tp})
	if err != nil {
		return position{}, err
	}
	b := log[h.tp]
	s.mu.Lock()
	was := h.next
	s.mu.Unlock()
	switch {
	case was < b.first:
		s.cfg.Log.ErrorContext(ctx, "records were deleted before they were read; going on at the earliest that is left",
			"group", s.cfg.Group, "topic", h.tp.Topic, "partition", h.tp.Partition, "offset", was, "first", b.first)
		return at(b.first), nil
	case was <= b.end:
		return position{}, kafka.OffsetOutOfRange // a leader that has not caught up
	}
	return s.restart(ctx, h, was, b)
}

// anew is where to go on in a partition of a topic that was made anew.
func (s *Session) anew(ctx context.Context, h *share) (position, error) {
	log, err := s.client.boundsOf(ctx, []TopicPartition{h.tp})
	if err != nil {
		return position{}, err
	}
	s.mu.Lock()
	was := h.next
	s.mu.Unlock()
	return s.restart(ctx, h, was, log[h.tp])
}

// restart is where to go on in a partition of which nobody knows how much of it is what it was.
func (s *Session) restart(ctx context.Context, h *share, was int64, b bounds) (position, error) {
	if err := s.cut(ctx, h.tp, was, b); err != nil {
		return position{}, err
	}
	one := []TopicPartition{h.tp}
	committed, err := s.client.groupOffsets(ctx, s.cfg.Group, one)
	if err != nil {
		return position{}, err
	}
	if committed[h.tp] < 0 {
		return at(b.first), nil
	}
	s.mu.Lock()
	good := s.good[h.tp]
	s.mu.Unlock()
	from := good.Add(-cutMargin)
	if good.IsZero() {
		from = time.Now().Add(-cutOldest)
	}
	first, err := s.client.firstSince(ctx, from, one)
	if err != nil {
		return position{}, err
	}
	if err := s.note(ctx, unmarked(first)); err != nil { // else the next member finds the old offset
		return position{}, err
	}
	return at(first[h.tp]), nil
}
