package saga

import (
	"slices"
	"strconv"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// lanes hold the messages that wait: for each key, one that failed, and behind it those of the same key, whose order
// must hold. Other keys pass. A message stays in its lane until it was handled or buried.
type lanes struct {
	backoff  time.Duration
	maxCount int // beyond these, messages wait in the database
	maxBytes int

	byKey map[string]*lane
	count int // in memory
	bytes int // theirs
	rows  int // in the database, and not in memory
}

// lane is one key's. Its order is items, rows, tail.
type lane struct {
	items []*item
	rows  int     // in the database
	tail  []*item // came when there were rows already, so they have to go there, too
	due   time.Time
	last  bool  // its head died: the others have one try each
	doom  error // its head died, and the others are buried with it; nil: not
}

func newLanes(c *Config) *lanes {
	return &lanes{backoff: c.Backoff, maxCount: c.MaxWaiting, maxBytes: c.MaxWaitingBytes, byKey: map[string]*lane{}}
}

// laneOf is the key that orders a message; one without a key is ordered with none.
func laneOf(it *item) string {
	if it.record.Key == nil {
		return "\x00" + it.record.Topic + "/" + strconv.Itoa(it.record.Partition) + "/" + strconv.FormatInt(it.record.Offset, 10)
	}
	return it.meta.Key
}

// sizeOf is about what a message takes in memory.
func sizeOf(it *item) int {
	n := 256 + len(it.record.Key) + len(it.record.Value)
	for _, h := range it.record.Headers {
		n += 64 + len(h.Key) + len(h.Value)
	}
	return n
}

// follow puts a message behind those of its key that wait, if there are any. One that is in its lane already stays
// where it is.
func (l *lanes) follow(it *item) bool {
	lane, ok := l.byKey[laneOf(it)]
	if !ok {
		return false
	}
	if it.waits {
		return len(lane.items) > 0 && lane.items[0] != it
	}
	it.waits = true
	l.count, l.bytes = l.count+1, l.bytes+sizeOf(it)
	if lane.rows > 0 {
		lane.tail = append(lane.tail, it)
	} else {
		lane.items = append(lane.items, it)
	}
	return true
}

// retry keeps a message that failed at the head of its lane until its next try: at once if that is to bury it.
func (l *lanes) retry(it *item) *lane {
	at := l.byKey[laneOf(it)]
	if at == nil {
		at = &lane{items: []*item{it}}
		l.byKey[laneOf(it)] = at
		it.waits = true
		l.count, l.bytes = l.count+1, l.bytes+sizeOf(it)
	}
	at.due = time.Time{}
	if it.dead == nil {
		at.due = time.Now().Add(l.backoff << min(it.attempts-1, 10))
	}
	return at
}

// done removes a message that was handled or buried. The next of its lane may go on at once.
func (l *lanes) done(it *item) {
	key := laneOf(it)
	lane := l.byKey[key]
	if !it.waits || lane == nil || len(lane.items) == 0 || lane.items[0] != it {
		return
	}
	lane.items, lane.due = lane.items[1:], time.Time{}
	l.left(it)
	l.tidy(key)
}

// left says that a message is not in memory any more.
func (l *lanes) left(it *item) {
	it.waits = false
	l.count, l.bytes = l.count-1, l.bytes-sizeOf(it)
}

// tidy removes a lane in which nobody waits: the next message of its key begins anew.
func (l *lanes) tidy(key string) {
	if lane := l.byKey[key]; len(lane.items) == 0 && lane.rows == 0 {
		if len(lane.tail) == 0 {
			delete(l.byKey, key)
			return
		}
		lane.items, lane.tail = lane.tail, nil
	}
}

// due returns the keys of lanes whose time has come.
func (l *lanes) due(now time.Time) []string {
	var keys []string
	for key, lane := range l.byKey {
		if !lane.due.After(now) {
			keys = append(keys, key)
		}
	}
	return keys
}

// next tells when the first lane is due, if there is one.
func (l *lanes) next() (at time.Time, ok bool) {
	for _, lane := range l.byKey {
		if !ok || lane.due.Before(at) {
			at, ok = lane.due, true
		}
	}
	return at, ok
}

// size is how many messages wait, in memory and in the database.
func (l *lanes) size() int { return l.count + l.rows }

// full tells whether more waits in memory than may.
func (l *lanes) full() bool { return l.count > l.maxCount || l.bytes > l.maxBytes }

// surplus are messages that are to wait in the database, by lane: tails, and, while memory is full, all of the largest
// lanes. That frees half of it, so that not each poll has to.
func (l *lanes) surplus() map[string][]*item {
	out := map[string][]*item{}
	var whole []string
	size := map[string]int{}
	for key, lane := range l.byKey {
		if len(lane.tail) > 0 {
			out[key] = lane.tail
		}
		if l.full() && len(lane.items) > 0 && lane.items[0].dead == nil {
			whole = append(whole, key)
			for _, it := range lane.items {
				size[key] += sizeOf(it)
			}
		}
	}
	slices.SortFunc(whole, func(a, b string) int { return size[b] - size[a] })
	count, bytes := l.count, l.bytes
	for _, key := range whole {
		if count <= l.maxCount/2 && bytes <= l.maxBytes/2 {
			break
		}
		lane := l.byKey[key]
		out[key] = slices.Concat(lane.items, lane.tail)
		count, bytes = count-len(lane.items), bytes-size[key]
	}
	return out
}

// stored says that the surplus is in the database now.
func (l *lanes) stored(surplus map[string][]*item) {
	for key, items := range surplus {
		lane := l.byKey[key]
		if len(items) > len(lane.tail) {
			lane.items = nil
		}
		lane.tail = nil
		for _, it := range items {
			l.left(it)
		}
		lane.rows += len(items)
		l.rows += len(items)
	}
}

// loaded puts the first messages of a lane's rows into memory. Only when none are left, the count of its rows is
// trusted to be zero: another member may have handled or parked some.
func (l *lanes) loaded(key string, items []*item) {
	lane := l.byKey[key]
	for _, it := range items {
		it.waits = true
		l.count, l.bytes = l.count+1, l.bytes+sizeOf(it)
	}
	was := lane.rows
	lane.items, lane.rows = items, max(1, lane.rows-len(items))
	if len(items) == 0 {
		lane.rows = 0
	}
	l.rows += lane.rows - was
	l.tidy(key)
}

// found makes lanes of keys that have messages in the database.
func (l *lanes) found(rows map[string]int) {
	for key, n := range rows {
		if l.byKey[key] == nil {
			l.byKey[key] = &lane{}
		}
		l.byKey[key].rows += n
		l.rows += n
	}
}

// forget drops what waits of partitions that are another member's now. What is in the database is theirs, too.
func (l *lanes) forget(gone map[broker.TopicPartition]bool) {
	for key, lane := range l.byKey {
		drop := func(it *item) bool {
			if gone[it.partition()] {
				l.left(it)
				return true
			}
			return false
		}
		lane.items, lane.tail = slices.DeleteFunc(lane.items, drop), slices.DeleteFunc(lane.tail, drop)
		l.tidy(key)
	}
}
