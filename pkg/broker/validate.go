package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// last is the position, and the latest epoch that is known to have reached it. The caller holds mu.
func (h *share) last() epochOffset {
	if e := h.epochs.before(h.next); e >= 0 {
		return epochOffset{h.next, e}
	}
	return epochOffset{h.next, h.reached}
}

// validate asks where the leaders' logs are still those that the positions are of, where that is not known. It tells,
// as resolve does, whether any partition can be fetched by now that could not, and whether any could not be validated.
func (s *Session) validate(ctx context.Context) (resolved, failed bool) {
	ask, shares := map[int]epochQuestion{}, map[TopicPartition]*share{}
	s.mu.Lock()
	now := time.Now()
	for tp, h := range s.held {
		if h.leader < 0 || h.next < 0 || h.outside || h.checked == h.epoch || s.going[tp] != nil || h.retry.After(now) {
			continue
		}
		last := h.last()
		if last.epoch < 0 || h.epoch < 0 {
			h.checked, resolved = h.epoch, true
			continue
		}
		q, ok := ask[h.leader]
		if !ok {
			q = newEpochQuestion()
			ask[h.leader] = q
		}
		shares[tp], q.current[tp], q.last[tp] = h, h.epoch, last
	}
	s.mu.Unlock()
	ends, errs := s.client.allEpochEnds(ctx, ask)
	for _, q := range ask {
		for tp := range q.last {
			h := shares[tp]
			err := errs[tp]
			end, ok := ends[tp]
			if err == nil && !ok {
				err = kafka.UnknownTopicOrPartition
			}
			if err == nil {
				err = s.judge(ctx, h, q.current[tp], q.last[tp], end)
			}
			if err == nil {
				resolved = true
				continue
			}
			failed = true
			s.mu.Lock()
			s.doubt = s.doubt || fenced(err)
			s.later(ctx, h, "leader epoch", err)
			s.mu.Unlock()
		}
	}
	return resolved, failed
}

// judge takes the answer to where the epoch of the record before a position ends.
func (s *Session) judge(ctx context.Context, h *share, current int32, last, end epochOffset) error {
	undefined := end.offset < 0 || end.epoch < 0
	s.mu.Lock()
	if s.held[h.tp] != h || h.next != last.offset { // gone, or a fetch that was under way has moved on: to be asked anew
		s.mu.Unlock()
		signal(s.kick)
		return nil
	}
	at := h.epochs.common(end)
	// A broker that has that epoch behind it and does not know where it ended keeps no epochs; an offset outside of its
	// log tells then.
	if undefined && last.epoch <= current || !undefined && at >= last.offset {
		h.checked = current
		s.mu.Unlock()
		return nil
	}
	committed := h.committed
	s.mu.Unlock()
	if undefined { // a leader of so late an epoch has never been: it is another topic
		p, err := s.anew(ctx, h)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rewind(h, p, nil, current)
		return nil
	}
	s.cfg.Log.ErrorContext(ctx, "the group was further than the partition's log is the same: it was cut; going on where it was cut",
		"group", s.cfg.Group, "topic", h.tp.Topic, "partition", h.tp.Partition, "offset", last.offset, "epoch", last.epoch, "cut", at, "leader_epoch", current)
	if err := s.tellCut(ctx, h.tp, last.offset, at); err != nil {
		return err
	}
	if committed > at { // what lies below may not be handled yet
		committed = at
		if err := s.note(ctx, map[TopicPartition]epochOffset{h.tp: {at, end.epoch}}); err != nil {
			return fmt.Errorf("commit where the log was cut: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewind(h, position{at, committed, end.epoch}, epochs{{-1, end.epoch}}, current)
	return nil
}

// rewind goes back in a partition. What was fetched of it and not polled is dropped, and so are commits of what was
// polled before, until the caller has polled as far again. The caller holds mu.
func (s *Session) rewind(h *share, p position, e epochs, current int32) {
	if s.held[h.tp] != h {
		return
	}
	n := *h
	n.next, n.outside, n.epochs, n.reached, n.checked, n.polled = p.next, false, e, noEpoch, current, p.next
	n.ages = nil
	n.committedTo(p.committed)
	s.held[h.tp] = &n
	s.cuts[h.tp], s.rewound = p.next, true
}

// uncut drops records of before a cut that wait for Poll. It must run before records of after it join them. The caller
// holds mu.
func (s *Session) uncut() {
	if len(s.cuts) == 0 {
		return
	}
	kept := s.pending[:0:0]
	for _, r := range s.pending {
		if at, ok := s.cuts[TopicPartition{r.Topic, r.Partition}]; !ok || r.Offset < at {
			kept = append(kept, r)
		}
	}
	s.pending = kept
	clear(s.cuts)
}

// gave notes how far the caller has polled, where that matters.
func (s *Session) gave(records []Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rewound {
		return
	}
	for i := range records {
		if h := s.held[TopicPartition{records[i].Topic, records[i].Partition}]; h != nil && h.polled >= 0 {
			h.polled = max(h.polled, records[i].Offset+1)
		}
	}
}
