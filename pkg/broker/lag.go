package broker

import (
	"context"
	"time"
)

const (
	endsGap   = 2 * time.Second // how often the ends of the partitions are asked for
	endsStale = 3 * endsGap     // an end that is older is not known any more
	ageStep   = time.Second     // how exactly the age of what waits is known
)

// ages remembers when records were written that are not committed: the first one of each second, in order of the
// offsets.
type ages []age

type age struct {
	offset int64
	at     time.Time
}

func (a *ages) add(offset int64, at time.Time) {
	if n := len(*a); n == 0 || at.Sub((*a)[n-1].at).Abs() >= ageStep {
		*a = append(*a, age{offset, at})
	}
}

// forget drops what lies before a committed offset. The last entry at or before it stays: it tells of what follows.
func (a *ages) forget(committed int64) {
	i := 0
	for i+1 < len(*a) && (*a)[i+1].offset <= committed {
		i++
	}
	*a = (*a)[i:]
}

// Lag is what the group has yet to do in a partition, as far as this member knows.
type Lag struct {
	Records int64         // that are not committed
	Age     time.Duration // of the oldest of them, by the time at which it was written; while Kafka does not answer: since it did, if that is longer
}

// Lag returns the lag of each held partition.
func (s *Session) Lag() map[TopicPartition]Lag {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	out := make(map[TopicPartition]Lag, len(s.held))
	for tp, h := range s.held {
		var l Lag
		if h.committed >= 0 {
			l.Records = max(0, h.end-h.committed)
		}
		if l.Records > 0 {
			l.Age = now.Sub(h.behind)
			h.ages.forget(h.committed)
			if len(h.ages) > 0 && h.committed < h.next { // something that was fetched waits
				l.Age = max(l.Age, now.Sub(h.ages[0].at))
			}
		}
		if silent := now.Sub(h.endAt); silent > endsStale {
			l.Age = max(l.Age, silent)
		}
		out[tp] = l
	}
	return out
}

// sawEnd notes where a partition ends. The caller holds mu.
func (h *share) sawEnd(end int64, now time.Time) {
	if h.end <= h.committed || h.committed < 0 {
		h.behind = now // nothing has waited until now
	}
	h.end, h.endAt = end, now
}

// committedTo notes what the group has committed. The caller holds mu.
func (h *share) committedTo(offset int64) {
	h.committed = offset
	h.ages.forget(offset)
	h.epochs.forget(offset)
	h.behind = time.Now()
}

// watchEnds asks for the ends of the held partitions, apart from the fetches: these stop while the caller does not
// poll.
func (s *Session) watchEnds(ctx context.Context) {
	for pause(ctx, endsGap) {
		s.mu.Lock()
		var tps []TopicPartition
		for tp := range s.held {
			tps = append(tps, tp)
		}
		s.mu.Unlock()
		if len(tps) == 0 {
			continue
		}
		ends, _ := s.client.listOffsets(ctx, latest, readCommitted, tps) // what fails is asked for again, and its age tells
		now := time.Now()
		s.mu.Lock()
		for tp, end := range ends {
			if h := s.held[tp]; h != nil {
				h.sawEnd(end.offset, now)
			}
		}
		s.mu.Unlock()
	}
}
