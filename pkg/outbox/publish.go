package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// attempt is events that went to the broker, and what became of them.
type attempt struct {
	rows    []row
	records []broker.Record // of the rows, with their places in the log
	errs    []error
	began   uint64    // by the ledger
	from    []laneKey // the lanes that the events come from; nil: from none
	learned bool      // a topic whose partitions were not known has some
}

// produce sends rows to the broker and waits for its answer.
func (r *Relay) produce(ctx context.Context, a attempt) attempt {
	a.records = make([]broker.Record, len(a.rows))
	for i := range a.rows {
		a.records[i] = a.rows[i].record
	}
	r.batch.Observe(float64(len(a.rows)))
	a.errs = r.producer.Produce(ctx, a.records)
	return a
}

// publish sends those of the rows that need not wait, and returns how many the broker acknowledged.
func (p *pump) publish(ctx context.Context, rows []row) (n int, err error) {
	free := p.admit(ctx, rows)
	if len(free) == 0 {
		return 0, nil
	}
	return p.settle(ctx, p.produce(ctx, attempt{rows: free, began: p.ledger.begin()}))
}

// admit has rows wait whose lanes do, or whose partitions are in doubt, and returns the others.
func (p *pump) admit(ctx context.Context, rows []row) []row {
	doubts := p.ledger.doubted()
	if len(p.lanes.of) == 0 && doubts == nil {
		return rows
	}
	splits := map[string]*split{} // of the topics that have partitions in doubt
	for tp := range doubts {
		if splits[tp.Topic] == nil {
			splits[tp.Topic] = p.lanes.splitOf(tp.Topic, func(topic string) int { return p.partitionsOf(ctx, topic) })
		}
	}
	free := make([]row, 0, len(rows))
	for i := range rows {
		r := &rows[i].record
		_, in := p.lanes.find(r)
		if s := splits[r.Topic]; in == nil && s != nil && s.doubtful(s.laneOf(r), doubts) {
			_, in = p.lanes.open(r, func(string) int { return s.partitions })
		}
		if in == nil {
			free = append(free, rows[i])
			continue
		}
		p.lanes.hold(in, rows[i].id)
		p.frontier.publish(rows[i].id)
	}
	return free
}

// retry sends events of the lanes that are due, beside everything else: a broker that hangs holds up only what waits
// for it.
func (p *pump) retry(ctx context.Context, beside *sync.WaitGroup) error {
	if p.retrying {
		return nil
	}
	if p.again {
		p.startOver()
		return nil
	}
	if len(p.lanes.of) == 0 {
		return nil
	}
	ids, from := p.lanes.due(time.Now(), p.cfg.Batch, p.ledger.doubted())
	if len(ids) == 0 {
		return nil
	}
	rctx, cancel := context.WithTimeout(ctx, workWithin)
	defer cancel()
	read, _ := p.conn.Query(rctx, theseSQL, ids) // the error surfaces in the collector
	rows, err := pgx.CollectRows(read, scanRow)
	if err != nil {
		return fmt.Errorf("read what waits for a broker: %w", err)
	}
	p.dropDeleted(ids, rows, from)
	rows, moved := p.lanes.move(rows)
	p.dropMoved(moved, from, slices.Max(ids))
	if len(rows) == 0 {
		return nil
	}
	from = slices.DeleteFunc(from, func(at laneKey) bool { return p.lanes.of[at] == nil })
	var unknown []string
	for _, at := range from {
		p.lanes.of[at].busy = true
		if p.lanes.topics[at.topic].partitions == 0 {
			unknown = append(unknown, at.topic)
		}
	}
	p.retrying = true
	a := attempt{rows: rows, began: p.ledger.begin(), from: from}
	beside.Go(func() {
		a = p.produce(ctx, a)
		for _, topic := range unknown {
			a.learned = p.partitionsOf(ctx, topic) > 0 || a.learned
		}
		p.retried <- a
	})
	return nil
}

// dropDeleted forgets events that somebody has deleted from the table.
func (p *pump) dropDeleted(ids []int64, rows []row, from []laneKey) {
	if len(rows) == len(ids) {
		return
	}
	gone := map[int64]bool{}
	for _, id := range ids {
		gone[id] = true
	}
	for i := range rows {
		delete(gone, rows[i].id)
	}
	for _, at := range from {
		p.drop(at, gone, slices.Max(ids))
	}
}

// dropMoved forgets events in the lanes of their partitions that wait in those of their keys.
func (p *pump) dropMoved(moved map[int64]bool, from []laneKey, last int64) {
	if len(moved) == 0 {
		return
	}
	for _, at := range from {
		if !at.alone {
			p.drop(at, moved, last)
		}
	}
}

func (p *pump) drop(at laneKey, gone map[int64]bool, last int64) {
	if p.lanes.of[at] != nil && p.lanes.drop(at, gone, last) {
		p.again = true
	}
}

// startOver forgets what is known of the table and reads it again from its beginning.
func (p *pump) startOver() {
	p.lanes, p.again = newLanes(), false
	p.ledger.reread()
	p.frontier, p.page, p.swept = frontier{}, 0, 0
	p.floor, p.mark, p.markTime = 0, 0, time.Time{}
	p.handed.lookSoon()
}

// settle notes what became of an attempt: what was acknowledged is to be taken out of the table, what was refused
// waits. It returns how many were acknowledged.
func (p *pump) settle(ctx context.Context, a attempt) (n int, err error) {
	if a.from != nil {
		p.retrying = false
		p.again = p.again || a.learned
	}
	// First, so that what was acknowledged after a cut is not among what was lost.
	if err := p.mend(ctx, p.ledger.acknowledged(a.began, a.records, a.errs)...); err != nil {
		return 0, err
	}
	gone, moved := map[int64]bool{}, map[int64]bool{}
	refused := map[laneKey]refusal{}
	for i, err := range a.errs {
		id, record := a.rows[i].id, &a.records[i]
		if err == nil {
			n++
			p.sent.add(id, record)
			if a.from != nil {
				gone[id] = true
			} else {
				p.frontier.publish(id)
			}
			continue
		}
		p.failed.Inc()
		at, in := p.laneOf(ctx, record, id, err)
		if p.lanes.left(at, id) {
			moved[id] = true
		}
		p.lanes.hold(in, id)
		p.frontier.publish(id)
		if _, told := refused[at]; !told {
			refused[at] = refusal{record, err}
		}
	}
	p.published.Add(float64(n))
	now, last := time.Now(), slices.MaxFunc(a.rows, func(x, y row) int { return cmp.Compare(x.id, y.id) }).id
	for _, at := range a.from {
		in := p.lanes.of[at]
		in.busy = false
		if _, bad := refused[at]; !bad && in.wait > 0 {
			in.wait = 0
			p.refusals.Over(ctx, p.cfg.Log, at.String(), "the broker takes the events that waited in the outbox", "topic", at.topic, "waiting", len(in.ids))
		}
		p.drop(at, gone, last)
	}
	p.dropMoved(moved, a.from, last)
	for at, why := range refused {
		p.lanes.of[at].refused(now, p.cfg.Retry)
		p.warnRefused(ctx, at, why)
	}
	if len(refused) > 0 && p.cfg.Keep >= 0 {
		p.ledger.failed(func(tp broker.TopicPartition) bool {
			for at := range refused {
				if !at.alone && p.lanes.topics[at.topic].goesTo(at, tp) {
					return true
				}
			}
			return false
		})
	}
	return n, nil
}

// laneOf is where a refused event has to wait.
func (p *pump) laneOf(ctx context.Context, r *broker.Record, id int64, err error) (laneKey, *lane) {
	partitions := func(topic string) int { return p.partitionsOf(ctx, topic) }
	if errors.Is(err, broker.ErrTooLarge) {
		return p.lanes.set(r, id, partitions)
	}
	return p.lanes.open(r, partitions)
}

// partitionsWithin is short: everything waits for the answer when a topic's first lane opens.
const partitionsWithin = 500 * time.Millisecond

// partitionsOf asks for the number of a topic's partitions, to tell them apart while one rests. Where nobody knows it
// in time, the topic rests as a whole until somebody does.
func (p *pump) partitionsOf(ctx context.Context, topic string) int {
	ctx, cancel := context.WithTimeout(ctx, partitionsWithin)
	defer cancel()
	n, err := p.producer.Partitions(ctx, topic)
	if err != nil {
		return 0
	}
	return n
}

// refusal is the first event that the broker did not take, and why.
type refusal struct {
	record *broker.Record
	err    error
}

func (p *pump) warnRefused(ctx context.Context, at laneKey, why refusal) {
	m := Message{Key: why.record.Key, Value: why.record.Value, Headers: why.record.Headers}
	p.refusals.Warn(ctx, p.cfg.Log, at.String(), "events wait in the outbox", "topic", at.topic, "partition", why.record.Partition,
		"bytes", m.Size(), "waiting", len(p.lanes.of[at].ids), "error", why.err)
}
