package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/converge-dev/converge/pkg/internal/quiet"
)

// Session is a member's share of the partitions, for as long as it is a member. Poll is for one goroutine at a time,
// and so is Commit.
//
// A partition is held from the assignment on. When it is taken away it becomes a departure until the caller has heard
// of it and polled again; only then is it given up, and only then begins what a later assignment of it brings.
type Session struct {
	client      *Client
	cfg         GroupConfig
	coordinator *coordinator
	loops       sync.WaitGroup // the member, the fetch loops and what else belongs to the session
	faults      quiet.Log
	out         chan delivery
	pending     []Record        // of Poll
	paused      []chan struct{} // fetch loops that wait for the next Poll

	free  chan struct{} // has one element when something was given up
	kick  chan struct{} // has one element when the manager has something to do
	moved chan struct{} // has one element when there are arrivals or departures that Poll has not reported

	mu      sync.Mutex // guards what follows
	who     identity
	held    map[TopicPartition]*share
	going   map[TopicPartition]*departure
	gained  []TopicPartition // that Poll has not reported
	changed chan struct{}    // closed and replaced when the fetch loops have something else to do
	resynch chan struct{}    // closed and replaced at each assignment
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
	// Gained are partitions that this member has since the last Poll.
	Gained []TopicPartition
	// Leaving are partitions that this member loses. The caller finishes what it has in hand of them, commits, forgets
	// what it keeps for them, and polls again: with that they are given up.
	Leaving []TopicPartition
}

// delivery is what one fetch brought. The loop that sent it goes on when more is closed: a fetch that waits until the
// last batch is done brings all that has come in the meantime, where one that is ahead of it brings the first record
// alone.
type delivery struct {
	records []Record
	of      map[TopicPartition]*share
	more    chan struct{}
}

func newSession(c *Client, cfg GroupConfig) *Session {
	return &Session{
		client: c, cfg: cfg, coordinator: &coordinator{client: c, group: cfg.Group}, out: make(chan delivery),
		free: make(chan struct{}, 1), kick: make(chan struct{}, 1), moved: make(chan struct{}, 1),
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

// Poll returns records of all held partitions, at most limit, in order per partition. It waits for the first one until
// ctx ends, and takes along what else has arrived. It returns at once, without records, when partitions have come or
// are leaving; see [Polled]. Records of a partition that is leaving or gone are not returned any more.
func (s *Session) Poll(ctx context.Context, limit int) (Polled, error) {
	s.giveUp()
	if moves, some := s.moves(); some {
		return moves, nil
	}
	if len(s.pending) == 0 {
		for _, more := range s.paused {
			close(more)
		}
		s.paused = s.paused[:0]
	}
	for len(s.pending) == 0 {
		select {
		case d := <-s.out:
			s.take(d)
		case <-s.moved:
			if moves, some := s.moves(); some {
				return moves, nil
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

// commitLimit is how long a commit waits for a rebalance to end.
const commitLimit = 3 * time.Second

// Commit stores the offset to go on from, by partition. It leaves out partitions that this member does not have any
// more. During a rebalance it waits a little. After an error the caller commits again later; what was not committed
// comes again, here or at another member.
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
func (s *Session) mine(offsets map[TopicPartition]int64) (identity, map[TopicPartition]epochOffset, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[TopicPartition]epochOffset, len(offsets))
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
		out[tp] = epochOffset{o, h.epochs.before(o)}
	}
	return s.who, out, s.resynch
}
