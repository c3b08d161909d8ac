package outbox

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

const (
	firstRest = 50 * time.Millisecond

	// maxHeld bounds the ids that are remembered, over all lanes: 8 MB.
	maxHeld = 1_000_000
)

// place names a lane: a partition, by its number.
type place struct {
	topic string
	part  int
}

func (p place) String() string { return fmt.Sprintf("%s/%d", p.topic, p.part) }

const (
	anywhere = -1 // where events without a key go: to a partition that is chosen each time
	nowhere  = 0  // the only place of a topic of which the partitions are not known
)

// lane is the events of one partition that wait because the broker refused the first of them: they stay in the table, their ids
// are remembered here, and no later event of the partition goes out before them. A lane that rests is tried again, each time later, soon with
// its first event only; when the broker takes that, the others follow in batches, and the lane is gone when none is left.
type lane struct {
	ids   []int64       // ascending
	more  bool          // others wait behind them that are not remembered
	busy  bool          // some are with the broker
	wait  time.Duration // how long it rested last; 0: the broker takes its events again
	until time.Time     // when it may be tried
}

func (l *lane) due(now time.Time) bool { return !l.busy && len(l.ids) > 0 && !now.Before(l.until) }

// hold has an event wait in the lane. It may be there already.
func (l *lane) hold(id int64, room bool) (added bool) {
	if n := len(l.ids); n == 0 || id > l.ids[n-1] { // the usual case
		if l.more || !room {
			l.more = true
			return false
		}
		l.ids = append(l.ids, id)
		return true
	}
	at, there := slices.BinarySearch(l.ids, id)
	if !there {
		l.ids = slices.Insert(l.ids, at, id)
	}
	return !there
}

// first is the ids of the events to try next: one, when the broker has refused more than once.
func (l *lane) first(limit int) []int64 {
	if l.wait > firstRest {
		limit = 1
	}
	return l.ids[:min(limit, len(l.ids))]
}

// drop forgets events, which are among those up to the last one.
func (l *lane) drop(gone map[int64]bool, last int64) (dropped int) {
	end, there := slices.BinarySearch(l.ids, last)
	if there {
		end++
	}
	left := make([]int64, 0, end)
	for _, id := range l.ids[:end] {
		if !gone[id] {
			left = append(left, id)
		}
	}
	copy(l.ids[end-len(left):end], left)
	l.ids = l.ids[end-len(left):]
	return end - len(left)
}

// lanes are the lanes that wait, and how the events of their topics are told apart. Topics without a lane are not in it.
type lanes struct {
	of     map[place]*lane
	topics map[string]*split
	held   int // ids, in all lanes
}

// split is a topic some of whose events wait. The number of its partitions stays as it was when the first had to: order needs
// that a key keeps its lane, and not that a lane is exactly a partition.
type split struct {
	partitions int // 0: not known
	lanes      int
}

func newLanes() lanes { return lanes{of: map[place]*lane{}, topics: map[string]*split{}} }

func (s *split) place(r *broker.Record) place {
	switch {
	case s.partitions == 0:
		return place{r.Topic, nowhere}
	case r.Key == nil:
		return place{r.Topic, anywhere}
	}
	return place{r.Topic, broker.PartitionOf(r.Key, s.partitions)}
}

// find returns the lane in which the record must wait, or nil.
func (l *lanes) find(r *broker.Record) (place, *lane) {
	s := l.topics[r.Topic]
	if s == nil {
		return place{}, nil
	}
	at := s.place(r)
	return at, l.of[at]
}

// open is find, and makes the lane where there is none. partitions is asked for a topic's number of partitions when its first lane opens.
func (l *lanes) open(r *broker.Record, partitions func(topic string) int) (place, *lane) {
	s := l.topics[r.Topic]
	if s == nil {
		s = &split{partitions: partitions(r.Topic)}
		l.topics[r.Topic] = s
	}
	at := s.place(r)
	found := l.of[at]
	if found == nil {
		found = &lane{}
		l.of[at] = found
		s.lanes++
	}
	return at, found
}

// hold has the event wait in a lane of theirs.
func (l *lanes) hold(in *lane, id int64) {
	if in.hold(id, l.held < maxHeld) {
		l.held++
	}
}

// drop forgets events that were published, or are gone from the table, and closes the lane if nothing is left in it. lost says
// that events wait behind them that only the table knows.
func (l *lanes) drop(at place, gone map[int64]bool, last int64) (lost bool) {
	in := l.of[at]
	l.held -= in.drop(gone, last)
	if len(in.ids) > 0 {
		return false
	}
	if in.more {
		return true
	}
	l.close(at)
	return false
}

// close forgets an empty lane.
func (l *lanes) close(at place) {
	delete(l.of, at)
	if s := l.topics[at.topic]; s.lanes > 1 {
		s.lanes--
	} else {
		delete(l.topics, at.topic)
	}
}

// refused has the lane rest, longer than the last time.
func (l *lane) refused(now time.Time, most time.Duration) {
	l.wait = min(max(2*l.wait, firstRest), most)
	l.until = now.Add(l.wait)
}

// goesTo tells whether the order of a lane's events is an order in the partition. Events without a key go anywhere, and have none.
func (l *lanes) goesTo(at place, tp broker.TopicPartition) bool {
	if at.topic != tp.Topic || at.part == anywhere {
		return false
	}
	return l.topics[at.topic].partitions == 0 || at.part == tp.Partition
}

// doubtful tells whether a lane has to wait for partitions that are in doubt.
func (l *lanes) doubtful(at place, doubts map[broker.TopicPartition]doubt) bool {
	for tp := range doubts {
		if l.goesTo(at, tp) {
			return true
		}
	}
	return false
}

// due returns the lanes that may be tried now and the ids to try, at most limit of the lanes that the broker has taken from again.
func (l *lanes) due(now time.Time, limit int, doubts map[broker.TopicPartition]doubt) (ids []int64, from []place) {
	for at, in := range l.of {
		if in.due(now) && !l.doubtful(at, doubts) {
			from = append(from, at)
		}
	}
	if len(from) == 0 {
		return nil, nil
	}
	slices.SortFunc(from, func(a, b place) int { return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.part, b.part)) })
	share := max(limit/len(from), 1)
	for _, at := range from {
		ids = append(ids, l.of[at].first(share)...)
	}
	return ids, from
}

// next is how long no lane is due, but for those of which somebody says when they are no longer in doubt.
func (l *lanes) next(now time.Time, most time.Duration, doubts map[broker.TopicPartition]doubt) time.Duration {
	for at, in := range l.of {
		if !in.busy && len(in.ids) > 0 && !l.doubtful(at, doubts) {
			most = min(most, max(in.until.Sub(now), 0))
		}
	}
	return most
}
