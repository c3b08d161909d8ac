package outbox

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

const (
	firstRest = 50 * time.Millisecond

	// maxHeld bounds the ids that are remembered, over all lanes: 8 MB.
	maxHeld = 1_000_000
)

// laneKey names a lane: a partition, by its number, or one key of it.
type laneKey struct {
	topic string
	part  int
	alone bool // the lane is the key's
	key   string
}

func (p laneKey) String() string {
	if p.alone {
		return fmt.Sprintf("%s/%d %q", p.topic, p.part, p.key)
	}
	return fmt.Sprintf("%s/%d", p.topic, p.part)
}

// own is the place of the record's key alone. A record without one has no order, and a place by its id.
func (p laneKey) own(r *broker.Record, id int64) laneKey {
	p.alone, p.key = true, string(r.Key)
	if r.Key == nil {
		p.key = strconv.FormatInt(id, 10)
	}
	return p
}

const (
	anywhere = -1 // where events without a key go: to a partition that is chosen each time
	nowhere  = 0  // the only place of a topic of which the partitions are not known
)

// lane is the events of one partition that wait because the broker refused the first of them: they stay in the table,
// their ids are remembered here, and no later event of the partition goes out before them. A lane that rests is tried
// again, each time later, soon with its first event only; when the broker takes that, the others follow in batches, and
// the lane is gone when none is left.
//
// An event that is larger than its topic takes is refused for as long as nobody changes the topic. It waits in a lane
// of its key, and the others of the partition go on.
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

func (l *lane) has(id int64) bool {
	_, there := slices.BinarySearch(l.ids, id)
	return there
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

// lanes are the lanes that wait, and how the events of their topics are told apart. Topics without a lane are not in
// it.
type lanes struct {
	of     map[laneKey]*lane
	topics map[string]*split
	held   int // ids, in all lanes
}

// split is a topic some of whose events wait. The number of its partitions stays as it was when the first had to: order
// needs that a key keeps its lane, and not that a lane is exactly a partition.
type split struct {
	partitions int // 0: not known
	lanes      int
	alone      int // of these, those of single keys
}

func newLanes() lanes { return lanes{of: map[laneKey]*lane{}, topics: map[string]*split{}} }

func (s *split) laneOf(r *broker.Record) laneKey {
	switch {
	case s.partitions == 0:
		return laneKey{topic: r.Topic, part: nowhere}
	case r.Key == nil:
		return laneKey{topic: r.Topic, part: anywhere}
	}
	return laneKey{topic: r.Topic, part: broker.PartitionOf(r.Key, s.partitions)}
}

// goesTo tells whether the order of a place's events is an order in the partition. Events without a key go anywhere,
// and have none.
func (s *split) goesTo(at laneKey, tp broker.TopicPartition) bool {
	if at.topic != tp.Topic || at.part == anywhere {
		return false
	}
	return s.partitions == 0 || at.part == tp.Partition
}

// doubtful tells whether a place's events have to wait for partitions that are in doubt.
func (s *split) doubtful(at laneKey, doubts map[broker.TopicPartition]doubt) bool {
	for tp := range doubts {
		if s.goesTo(at, tp) {
			return true
		}
	}
	return false
}

// find returns the lane in which the record must wait, or nil.
func (l *lanes) find(r *broker.Record) (laneKey, *lane) {
	s := l.topics[r.Topic]
	if s == nil {
		return laneKey{}, nil
	}
	at := s.laneOf(r)
	if s.alone > 0 && r.Key != nil {
		if own := at.own(r, 0); l.of[own] != nil {
			return own, l.of[own]
		}
	}
	return at, l.of[at]
}

// open is find, and makes the lane of the partition where there is none. partitions is asked for a topic's number of
// partitions when its first lane opens.
func (l *lanes) open(r *broker.Record, partitions func(topic string) int) (laneKey, *lane) {
	at, found := l.find(r)
	if found != nil {
		return at, found
	}
	s := l.splitOf(r.Topic, partitions)
	return l.at(s, s.laneOf(r))
}

// set is open for an event that waits in a lane of its key, also where the partition has one.
func (l *lanes) set(r *broker.Record, id int64, partitions func(topic string) int) (laneKey, *lane) {
	s := l.splitOf(r.Topic, partitions)
	return l.at(s, s.laneOf(r).own(r, id))
}

// splitOf is how the events of a topic are told apart, or would be if one had to wait.
func (l *lanes) splitOf(topic string, partitions func(topic string) int) *split {
	if s := l.topics[topic]; s != nil {
		return s
	}
	return &split{partitions: partitions(topic)}
}

func (l *lanes) at(s *split, at laneKey) (laneKey, *lane) {
	found := l.of[at]
	if found == nil {
		found = &lane{}
		l.of[at], l.topics[at.topic] = found, s
		s.lanes++
		if at.alone {
			s.alone++
		}
	}
	return at, found
}

// left tells whether an event that waits in the lane of its key is still in its partition's.
func (l *lanes) left(at laneKey, id int64) bool {
	if !at.alone {
		return false
	}
	from := l.of[laneKey{topic: at.topic, part: at.part}]
	return from != nil && from.has(id)
}

// move has events wait in the lanes of their keys which came to be there after they had to wait for their partition. It
// returns them, and the others, of which those of single keys come last: what refuses them does not hold up the
// partition.
func (l *lanes) move(rows []row) (others []row, moved map[int64]bool) {
	var last []row
	moved = map[int64]bool{}
	for i := range rows {
		at, in := l.find(&rows[i].record)
		switch {
		case l.left(at, rows[i].id):
			moved[rows[i].id] = true
			l.hold(in, rows[i].id)
		case at.alone:
			last = append(last, rows[i])
		default:
			others = append(others, rows[i])
		}
	}
	return append(others, last...), moved
}

// hold has the event wait in a lane of theirs.
func (l *lanes) hold(in *lane, id int64) {
	if in.hold(id, l.held < maxHeld) {
		l.held++
	}
}

// drop forgets events that were published, or are gone from the table, and closes the lane if nothing is left in it.
// lost says that events wait behind them that only the table knows.
func (l *lanes) drop(at laneKey, gone map[int64]bool, last int64) (lost bool) {
	in := l.of[at]
	l.held -= in.drop(gone, last)
	if len(in.ids) > 0 {
		return false
	}
	if in.more {
		return true
	}
	delete(l.of, at)
	s := l.topics[at.topic]
	if at.alone {
		s.alone--
	}
	if s.lanes--; s.lanes == 0 {
		delete(l.topics, at.topic)
	}
	return false
}

// refused has the lane rest, longer than the last time.
func (l *lane) refused(now time.Time, most time.Duration) {
	l.wait = min(max(2*l.wait, firstRest), most)
	l.until = now.Add(l.wait)
}

// due returns the lanes that may be tried now and the ids to try, at most limit of the lanes that the broker has taken
// from again.
func (l *lanes) due(now time.Time, limit int, doubts map[broker.TopicPartition]doubt) (ids []int64, from []laneKey) {
	single := map[laneKey]laneKey{} // the key that may be tried, by partition: a refused one would hold up the next
	for at, in := range l.of {
		switch {
		case !in.due(now) || l.topics[at.topic].doubtful(at, doubts):
		case at.alone:
			part := laneKey{topic: at.topic, part: at.part}
			if other, ok := single[part]; !ok || in.until.Before(l.of[other].until) {
				single[part] = at
			}
		default:
			from = append(from, at)
		}
	}
	from = slices.AppendSeq(from, maps.Values(single))
	if len(from) == 0 {
		return nil, nil
	}
	slices.SortFunc(from, func(a, b laneKey) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.part, b.part), cmp.Compare(a.key, b.key))
	})
	share := max(limit/len(from), 1)
	for _, at := range from {
		ids = append(ids, l.of[at].first(share)...)
	}
	return ids, from
}

// next is how long no lane is due, but for those of which somebody says when they are no longer in doubt.
func (l *lanes) next(now time.Time, most time.Duration, doubts map[broker.TopicPartition]doubt) time.Duration {
	for at, in := range l.of {
		if !in.busy && len(in.ids) > 0 && !l.topics[at.topic].doubtful(at, doubts) {
			most = min(most, max(in.until.Sub(now), 0))
		}
	}
	return most
}
