package outbox

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// doubtMost is how long what is kept waits for a partition of which nobody tells the end.
const doubtMost = time.Hour

// ledger is what the broker has acknowledged, by partition, and in which of them that is in doubt. The pump and the
// watch share it.
type ledger struct {
	turn atomic.Int32  // the table that takes the rows
	cuts chan cut      // for the pump
	look chan struct{} // for the watch: a partition is in doubt

	mu     sync.Mutex
	marks  map[broker.TopicPartition]mark
	calls  uint64                        // counts publications
	cures  map[broker.TopicPartition]int // how often each was mended
	doubts map[broker.TopicPartition]doubt
}

// mark is the highest offset that was acknowledged in a partition.
type mark struct {
	offset int64
	call   uint64 // by which it was
	at     time.Time
	epoch  int32 // of the partition's leader, as the last look has found it; broker.NoEpoch: nobody has looked
}

// doubt is of a partition that may have lost what it had acknowledged: its broker has failed, or nobody has looked yet.
// Nothing is published to it before its end is known, and what it has lost is read again: otherwise the next events
// would come before the lost ones.
type doubt struct {
	since time.Time
	last  time.Time // the latest reason for it
	cut   bool      // it has lost some, which is back in the table, to be read again from its beginning
}

// cut is a log that ends, or goes on, at an offset although a higher one was acknowledged.
type cut struct {
	tp    broker.TopicPartition
	at    int64 // the first offset that is lost
	was   int64 // the highest that was acknowledged
	cures int   // how often the partition had been mended when it was found
	ended bool  // it was found by the log's end: nothing has been acknowledged after the cut
}

func newLedger() *ledger {
	return &ledger{
		cuts: make(chan cut), look: make(chan struct{}, 1),
		marks: map[broker.TopicPartition]mark{}, cures: map[broker.TopicPartition]int{}, doubts: map[broker.TopicPartition]doubt{},
	}
}

// inherit takes what was acknowledged to the leader before. What has become of it meanwhile is not known.
func (l *ledger) inherit(marks map[broker.TopicPartition]mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks = marks
	for tp := range marks {
		l.suspect(tp)
	}
}

// suspect puts a partition in doubt. The caller holds mu.
func (l *ledger) suspect(tp broker.TopicPartition) {
	d, now := l.doubts[tp], time.Now()
	if d.since.IsZero() {
		d.since = now
	}
	d.last = now
	l.doubts[tp] = d
}

// failed puts partitions in doubt that refused a record, or did not answer. Those that have acknowledged nothing have
// nothing to lose.
func (l *ledger) failed(in func(broker.TopicPartition) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tp := range l.marks {
		if in(tp) {
			l.suspect(tp)
			signal(l.look)
		}
	}
}

// doubted returns the partitions that nothing may be published to; nil: none.
func (l *ledger) doubted() map[broker.TopicPartition]doubt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.doubts) == 0 {
		return nil
	}
	return maps.Clone(l.doubts)
}

// answered takes the ends that were asked for at some time, with the marks and cures of then. It returns the partitions
// that were cut and those that were in doubt for too long, and tells whether any is no longer in doubt.
func (l *ledger) answered(asked time.Time, marks map[broker.TopicPartition]mark, cures map[broker.TopicPartition]int, ends map[broker.TopicPartition]broker.End) (
	cuts []cut, cleared bool, lost []broker.TopicPartition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tp, m := range marks {
		end, known := ends[tp]
		d, doubted := l.doubts[tp]
		switch {
		case !known:
			l.suspect(tp)
			if doubted && time.Since(d.since) > doubtMost {
				lost, cleared = append(lost, tp), true
				delete(l.marks, tp)
				delete(l.doubts, tp)
			}
		case end.Offset <= m.offset:
			l.suspect(tp)
			cuts = append(cuts, cut{tp: tp, at: end.Offset, was: m.offset, cures: cures[tp], ended: true})
		default:
			if is, marked := l.marks[tp]; marked && cures[tp] == l.cures[tp] {
				is.epoch = end.Epoch
				l.marks[tp] = is
			}
			if doubted && !d.cut && d.last.Before(asked) {
				cleared = true
				delete(l.doubts, tp)
			}
		}
	}
	return cuts, cleared, lost
}

// begin numbers a publication.
func (l *ledger) begin() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// acknowledged notes the records without an error, and returns the partitions that were cut: they acknowledged an
// offset that had been acknowledged before the publication began.
func (l *ledger) acknowledged(began uint64, records []broker.Record, errs []error) (cuts []cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	now := time.Now()
	for i := range records {
		if errs[i] != nil {
			continue
		}
		r := &records[i]
		tp := broker.TopicPartition{Topic: r.Topic, Partition: r.Partition}
		m, known := l.marks[tp]
		epoch := m.epoch
		switch {
		case !known:
			epoch = broker.NoEpoch
		case r.Offset > m.offset:
		case m.call > began: // another publication beside this one raised it
			continue
		default:
			cuts = append(cuts, cut{tp: tp, at: r.Offset, was: m.offset, cures: l.cures[tp]})
			epoch = broker.NoEpoch
		}
		l.marks[tp] = mark{r.Offset, l.calls, now, epoch}
	}
	return cuts
}

// cured forgets what was acknowledged from the cut on. The partition has to wait until the table was read again.
func (l *ledger) cured(c cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cures[c.tp]++
	if c.ended {
		delete(l.marks, c.tp)
	}
	l.suspect(c.tp)
	d := l.doubts[c.tp]
	d.cut = true
	l.doubts[c.tp] = d
}

// reread says that the table is being read from its beginning.
func (l *ledger) reread() {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.doubts, func(_ broker.TopicPartition, d doubt) bool { return d.cut })
}

// stale says that the partition was mended since the cut was found, which may be the same.
func (l *ledger) stale(c cut) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.cures != l.cures[c.tp]
}

// recent returns the marks of the partitions of which rows may be kept.
func (l *ledger) recent(keep time.Duration) (marks map[broker.TopicPartition]mark, cures map[broker.TopicPartition]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := time.Now().Add(-3 * keep)
	maps.DeleteFunc(l.marks, func(tp broker.TopicPartition, m mark) bool {
		_, doubted := l.doubts[tp]
		return !doubted && m.at.Before(oldest)
	})
	return maps.Clone(l.marks), maps.Clone(l.cures)
}
