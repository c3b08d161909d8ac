package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/converge-dev/converge/pkg/internal/quiet"
)

// Session is a member's share of the partitions, for as long as it is a member. Poll is for one goroutine at a time, and so is Commit.
//
// A partition is held from the assignment on. When it is taken away it becomes a departure until the caller has heard of it and polled
// again; only then is it given up, and only then begins what a later assignment of it brings.
type Session struct {
	client      *Client
	cfg         GroupConfig
	coordinator *coordinator
	loops       sync.WaitGroup // the member, the fetch loops and what else belongs to the session
	faults      quiet.Log
	out         chan delivery
	pending     []Record        // of Poll
	paused      []chan struct{} // fetch loops that wait for the next Poll

	free chan struct{} // has one element when something was given up
	kick chan struct{} // has one element when the manager has something to do
	left chan struct{} // has one element when there are departures that Poll has not reported

	mu      sync.Mutex // guards what follows
	who     identity
	held    map[TopicPartition]*share
	going   map[TopicPartition]*departure
	changed chan struct{} // closed and replaced when the fetch loops have something else to do
	resynch chan struct{} // closed and replaced at each assignment
	good    map[TopicPartition]time.Time
	gone    map[string]bool          // topics that were seen missing
	doubt   bool                     // a broker does not agree with the metadata
	cuts    map[TopicPartition]int64 // where partitions were rewound to that Poll has not heard of
	rewound bool
}

// share is one held partition.
type share struct {
	tp      TopicPartition
	leader  int   // broker id; -1: none known
	epoch   int32 // the leader's; -1: none known
	next    int64 // offset to fetch; < 0: not known yet
	retry   time.Time
	wait    time.Duration
	outside bool // the position lies outside of the log

	checked int32     // the leader epoch in which the position was found to be one of the log
	epochs  epochs    // of what was read
	reached int32     // the last leader epoch in which a fetch from the position went well; -1: none
	agreed  time.Time // when the epoch came from a broker
	polled  int64     // after a rewind, how far the caller has polled since; -1: there was none

	committed int64
	end       int64
	endAt     time.Time // when end was asked for, or a fetch told it
	behind    time.Time // since when there has been something to commit
	ages      ages
}

// departure is a partition that was taken away.
type departure struct {
	since    time.Time
	lost     bool // others may have it already: commits for it are left out
	reported bool
	share    *share // as it was
}

// Polled is what a Poll brings.
type Polled struct {
	Records []Record
	// Leaving are partitions that this member loses. The caller finishes what it has in hand of them, commits, forgets what it keeps for
	// them, and polls again: with that they are given up.
	Leaving []TopicPartition
}

// delivery is what one fetch brought. The loop that sent it goes on when more is closed: a fetch that waits until the last
// batch is done brings all that has come in the meantime, where one that is ahead of it brings the first record alone.
type delivery struct {
	records []Record
	of      map[TopicPartition]*share
	more    chan struct{}
}

func newSession(c *Client, cfg GroupConfig) *Session {
	return &Session{
		client: c, cfg: cfg, coordinator: &coordinator{client: c, group: cfg.Group}, out: make(chan delivery),
		free: make(chan struct{}, 1), kick: make(chan struct{}, 1), left: make(chan struct{}, 1),
		held: map[TopicPartition]*share{}, going: map[TopicPartition]*departure{},
		changed: make(chan struct{}), resynch: make(chan struct{}), good: map[TopicPartition]time.Time{}, gone: map[string]bool{}, cuts: map[TopicPartition]int64{},
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Poll returns records of all held partitions, at most limit, in order per partition. It waits for the first one until ctx ends, and
// takes along what else has arrived. It returns at once, without records, when partitions are leaving; see [Polled]. Records of a
// partition that is leaving or gone are not returned any more. A limit of 0 waits for partitions that leave alone.
func (s *Session) Poll(ctx context.Context, limit int) (Polled, error) {
	s.giveUp()
	if leaving := s.departures(); len(leaving) > 0 {
		return Polled{Leaving: leaving}, nil
	}
	out := s.out
	if limit <= 0 {
		out = nil
	} else if len(s.pending) == 0 {
		for _, more := range s.paused {
			close(more)
		}
		s.paused = s.paused[:0]
	}
	for len(s.pending) == 0 || limit <= 0 {
		select {
		case d := <-out:
			s.take(d)
		case <-s.left:
			if leaving := s.departures(); len(leaving) > 0 {
				return Polled{Leaving: leaving}, nil
			}
		case <-ctx.Done():
			return Polled{}, ctx.Err()
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
	s.gave(batch)
	return Polled{Records: batch}, nil
}

// take keeps the records of partitions that are still held. A delivery of none lets its loop go on at once.
func (s *Session) take(d delivery) {
	s.mu.Lock()
	s.uncut()
	before := len(s.pending)
	for _, r := range d.records {
		tp := TopicPartition{r.Topic, r.Partition}
		if s.held[tp] != nil && s.held[tp] == d.of[tp] {
			s.pending = append(s.pending, r)
		}
	}
	s.mu.Unlock()
	if len(s.pending) == before {
		close(d.more)
		return
	}
	s.paused = append(s.paused, d.more)
}

// Partitions returns those that the member holds, in no order.
func (s *Session) Partitions() []TopicPartition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.held))
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
	signal(s.left)
}

// revoke takes away all but some partitions, and tells whether there were any. The member may still commit them until they are given up.
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

// assign takes what the leader has assigned: it keeps what it has of that, revokes the rest, and begins with what is new. It tells whether there
// is anything to give up.
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
		}
	}
	close(s.resynch)
	s.resynch = make(chan struct{})
	signal(s.kick)
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

// commitLimit is how long a commit waits for a rebalance to end.
const commitLimit = 3 * time.Second

// Commit stores the offset to go on from, by partition. It leaves out partitions that this member does not have any more. During a
// rebalance it waits a little. After an error the caller commits again later; what was not committed comes again, here or at
// another member.
func (s *Session) Commit(offsets map[TopicPartition]int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	for begun := time.Now(); ; {
		who, mine, resynch := s.mine(offsets)
		if len(mine) == 0 {
			return nil
		}
		failed, err := s.coordinator.commit(ctx, who, mine)
		for tp, e := range failed {
			delete(mine, tp)
			if !errors.Is(e, kafka.UnknownTopicOrPartition) { // deleted: there is nothing to go on from
				err = fmt.Errorf("%s/%d: %w", tp.Topic, tp.Partition, e)
			}
		}
		s.mu.Lock()
		for tp, o := range mine {
			if h := s.held[tp]; h != nil && err == nil {
				h.committedTo(o.offset)
			}
		}
		s.mu.Unlock()
		if err == nil {
			return nil
		}
		unsettled := errors.Is(err, kafka.RebalanceInProgress) || errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId)
		if !unsettled || time.Since(begun) > commitLimit {
			return fmt.Errorf("commit offsets of %s: %w", s.cfg.Group, err)
		}
		select {
		case <-resynch:
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// mine is the part of offsets that the member may commit, and as whom.
func (s *Session) mine(offsets map[TopicPartition]int64) (identity, map[TopicPartition]place, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[TopicPartition]place, len(offsets))
	for tp, o := range offsets {
		h := s.held[tp]
		if d := s.going[tp]; d != nil {
			if h = d.share; d.lost {
				continue
			}
		}
		if h == nil || h.polled >= 0 && o > h.polled { // not its own, or of a log that was cut since
			continue
		}
		out[tp] = place{o, h.epochs.before(o)}
	}
	return s.who, out, s.resynch
}
