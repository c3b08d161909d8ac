package saga

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// maxParked bounds the messages that wait in memory for another try.
const maxParked = 5000

// progress is how far each partition has been handled and what of it Kafka has been told.
type progress struct {
	next    map[broker.TopicPartition]int64
	changed time.Time // when the first offset since the last commit was handled; zero: none
}

func newProgress() *progress { return &progress{next: map[broker.TopicPartition]int64{}} }

func (p *progress) handled(records []broker.Record) {
	if len(records) > 0 && p.changed.IsZero() {
		p.changed = time.Now()
	}
	for i := range records {
		p.next[broker.TopicPartition{Topic: records[i].Topic, Partition: records[i].Partition}] = records[i].Offset + 1
	}
}

// undone says that Kafka was not told after all.
func (p *progress) undone() {
	if p.changed.IsZero() {
		p.changed = time.Now()
	}
}

// commitAt tells when the next commit is due, if one is.
func (p *progress) commitAt(every time.Duration) (time.Time, bool) {
	return p.changed.Add(every), !p.changed.IsZero()
}

func (p *progress) due(every time.Duration) bool {
	at, dirty := p.commitAt(every)
	return dirty && !time.Now().Before(at)
}

// drop forgets partitions that the member does not have any more.
func (p *progress) drop(tps []broker.TopicPartition) {
	for _, tp := range tps {
		delete(p.next, tp)
	}
}

// take returns the offsets to commit: up to the first message of each partition that still waits in a lane.
func (p *progress) take(lanes *lanes) map[broker.TopicPartition]int64 {
	if p.changed.IsZero() {
		return nil
	}
	out := make(map[broker.TopicPartition]int64, len(p.next))
	maps.Copy(out, p.next)
	p.changed = time.Time{}
	for _, lane := range lanes.byKey {
		for _, it := range lane.items {
			tp := broker.TopicPartition{Topic: it.record.Topic, Partition: it.record.Partition}
			if it.record.Offset < out[tp] {
				out[tp] = it.record.Offset
			}
			p.changed = time.Now() // what waits must be committed later
		}
	}
	return out
}

// committer tells Kafka about progress, one commit at a time, while the next batch is in work.
type committer struct {
	commit func(map[broker.TopicPartition]int64) bool
	done   chan struct{} // closed when the last commit has ended
	failed bool          // it did; valid when it has ended
}

func newCommitter(commit func(map[broker.TopicPartition]int64) bool) *committer {
	c := &committer{commit: commit, done: make(chan struct{})}
	close(c.done)
	return c
}

func (c *committer) idle() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// start needs an idle committer.
func (c *committer) start(offsets map[broker.TopicPartition]int64) {
	done := make(chan struct{})
	c.done = done
	go func() {
		defer close(done)
		c.failed = !c.commit(offsets)
	}()
}

// again tells, once, that the last commit failed.
func (c *committer) again() bool {
	failed := c.idle() && c.failed
	if failed {
		c.failed = false
	}
	return failed
}

func (c *committer) wait() { <-c.done }

// lanes hold the messages that wait: for each key, one that failed, and behind it those of the same key, whose order
// must hold. Other keys pass.
type lanes struct {
	backoff time.Duration
	byKey   map[string]*lane
	count   int
}

type lane struct {
	items []*item
	due   time.Time
}

func newLanes(backoff time.Duration) *lanes {
	return &lanes{backoff: backoff, byKey: map[string]*lane{}}
}

// laneOf is the key that orders a message; one without a key is ordered with none.
func laneOf(it *item) string {
	if it.record.Key == nil {
		return "\x00" + it.record.Topic + "/" + strconv.Itoa(it.record.Partition) + "/" + strconv.FormatInt(it.record.Offset, 10)
	}
	return it.meta.Key
}

// follow puts a message behind one of its key that waits, if there is one.
func (l *lanes) follow(it *item) bool {
	lane, ok := l.byKey[laneOf(it)]
	if ok {
		lane.items = append(lane.items, it)
		l.count++
	}
	return ok
}

// park puts a message that failed at the head of its key's lane, until its next try.
func (l *lanes) park(it *item) {
	key := laneOf(it)
	lane0 := l.byKey[key]
	if lane0 == nil {
		lane0 = &lane{}
		l.byKey[key] = lane0
	}
	lane0.items = append([]*item{it}, lane0.items...)
	lane0.due = time.Now().Add(l.backoff << min(it.attempts-1, 10))
	l.count++
}

// take removes and returns the head of a key's lane, and the lane when that was all.
func (l *lanes) take(key string) *item {
	lane, ok := l.byKey[key]
	if !ok {
		return nil
	}
	if len(lane.items) == 0 {
		delete(l.byKey, key)
		return nil
	}
	it := lane.items[0]
	lane.items, lane.due = lane.items[1:], time.Time{}
	l.count--
	return it
}

// waits tells whether the key's head was parked anew.
func (l *lanes) waits(key string) bool {
	lane, ok := l.byKey[key]
	return ok && lane.due.After(time.Time{})
}

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

// drop forgets the messages of partitions that the member does not have any more. Who has them next begins with these.
func (l *lanes) drop(tps []broker.TopicPartition) {
	for key, lane := range l.byKey {
		before := len(lane.items)
		lane.items = slices.DeleteFunc(lane.items, func(it *item) bool {
			return slices.Contains(tps, broker.TopicPartition{Topic: it.record.Topic, Partition: it.record.Partition})
		})
		l.count -= before - len(lane.items)
		if len(lane.items) == 0 {
			delete(l.byKey, key)
		}
	}
}

func (l *lanes) size() int { return l.count }
