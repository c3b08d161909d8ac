package broker

import (
	"slices"
	"time"
)

// moves reports what has come and what leaves, each once, and whether there is any.
func (s *Session) moves() (moves Polled, some bool) {
	moves = Polled{Gained: s.arrivals(), Leaving: s.departures()}
	return moves, len(moves.Gained) > 0 || len(moves.Leaving) > 0
}

// arrivals reports those that were not. One that comes back while it is still on its way out waits until it was given
// up.
func (s *Session) arrivals() (gained []TopicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gained) == 0 {
		return nil
	}
	var later []TopicPartition
	for _, tp := range s.gained {
		switch {
		case s.going[tp] != nil:
			later = append(later, tp)
		case s.held[tp] != nil:
			gained = append(gained, tp)
		}
	}
	s.gained = later
	return gained
}

// giveUp ends the departures that the caller has heard of, and drops what was cut: it has polled again.
func (s *Session) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncut()
	for tp, d := range s.going {
		if d.reported {
			delete(s.going, tp)
			signal(s.free)
			signal(s.kick) // it may have been assigned again
		}
	}
}

// departures reports those that were not, and drops their records.
func (s *Session) departures() (leaving []TopicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp, d := range s.going {
		if !d.reported {
			d.reported = true
			leaving = append(leaving, tp)
		}
	}
	if len(leaving) > 0 {
		s.pending = slices.DeleteFunc(s.pending, func(r Record) bool { return s.going[TopicPartition{r.Topic, r.Partition}] != nil })
	}
	return leaving
}

// depart takes a partition away. The caller holds mu.
func (s *Session) depart(tp TopicPartition, lost bool) {
	h := s.held[tp]
	delete(s.held, tp)
	delete(s.cuts, tp)
	if d := s.going[tp]; d != nil {
		d.lost = d.lost || lost
		return
	}
	s.going[tp] = &departure{since: time.Now(), lost: lost, share: h}
	signal(s.moved)
}

// revoke takes away all but some partitions, and tells whether there were any. The member may still commit them until
// they are given up.
func (s *Session) revoke(keep []TopicPartition) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp := range s.held {
		if !slices.Contains(keep, tp) {
			s.depart(tp, false)
			found = true
		}
	}
	return found
}

// lose takes everything away: others may have it already.
func (s *Session) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who.generation = 0
	for tp := range s.held {
		s.depart(tp, true)
	}
	for _, d := range s.going {
		d.lost = true
	}
}

// settled tells whether nothing is on its way out that this member must give up before others can have it.
func (s *Session) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.going {
		if !d.lost {
			return false
		}
	}
	return true
}

// overdue ends the right to what should have been given up that long ago, and tells whether there was any.
func (s *Session) overdue(limit time.Duration) (found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.going {
		if !d.lost && time.Since(d.since) >= limit {
			d.lost, found = true, true
		}
	}
	return found
}

// claims is what the member has: held, or on its way out and not given up.
func (s *Session) claims() (generation int32, owned []TopicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for tp := range s.held {
		owned = append(owned, tp)
	}
	for tp, d := range s.going {
		if !d.lost && s.held[tp] == nil {
			owned = append(owned, tp)
		}
	}
	return s.who.generation, owned
}

// assign takes what the leader has assigned: it keeps what it has of that, revokes the rest, and begins with what is
// new. It tells whether there is anything to give up.
func (s *Session) assign(who identity, mine []TopicPartition) (revoked bool) {
	revoked = s.revoke(mine)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.who = who
	for _, tp := range mine {
		if s.held[tp] == nil {
			s.held[tp] = &share{
				tp: tp, leader: -1, epoch: noEpoch, next: -1, checked: unchecked, reached: noEpoch, polled: -1, committed: -1, end: -1, endAt: time.Now(),
			}
			s.gained = append(s.gained, tp)
		}
	}
	close(s.resynch)
	s.resynch = make(chan struct{})
	signal(s.kick)
	signal(s.moved)
	return revoked
}

// end takes away the right to commit: the member leaves.
func (s *Session) end() { s.lose() }

// vanished remembers that a topic was missing: what comes under its name later is another topic.
func (s *Session) vanished(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone[topic] = true
}
