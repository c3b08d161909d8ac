package saga

import (
	"maps"
	"slices"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

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

// forget drops partitions that are another member's now.
func (p *progress) forget(gone map[broker.TopicPartition]bool) {
	maps.DeleteFunc(p.next, func(tp broker.TopicPartition, _ int64) bool { return gone[tp] })
}

// take returns the offsets to commit: up to the first message of each partition that still waits in a lane in memory.
// What waits in the database is safe there.
func (p *progress) take(lanes *lanes) map[broker.TopicPartition]int64 {
	if p.changed.IsZero() {
		return nil
	}
	out := make(map[broker.TopicPartition]int64, len(p.next))
	maps.Copy(out, p.next)
	p.changed = time.Time{}
	for _, lane := range lanes.byKey {
		for _, it := range slices.Concat(lane.items, lane.tail) {
			if it.parked {
				continue
			}
			if tp := it.partition(); it.record.Offset < out[tp] {
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
