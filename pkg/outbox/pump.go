package outbox

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// Rows are read from a floor upwards, the frontier of a while ago: nothing can appear below. Without a floor each read walks
// over the deleted rows that vacuum cannot remove while some old transaction is open elsewhere. A look from zero every so
// often also finds the events of those who emit without holding a lock.
const (
	floorAge    = time.Second
	fullLookGap = time.Second
)

// deleteAfter is how long published rows may wait for others, to be deleted together.
const deleteAfter = 100 * time.Millisecond

const deleteSQL = `DELETE FROM outbox WHERE id = ANY($1)`

const nextSQL = `SELECT id, topic, key, value, headers, created_at FROM outbox
WHERE id >= $1 AND topic <> ALL($2) ORDER BY id LIMIT $3`

const snapshotSQL = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint`

// Not a snapshot's xmax: that is the last transaction that has ended, and one, not the last that has begun.
const ownSQL = `SELECT pg_current_xact_id()::text::bigint`

type row struct {
	id     int64
	record broker.Record
}

// pump is the leader's loop and what it remembers.
type pump struct {
	*Relay
	conn *pgx.Conn

	resting  map[string]rest // topics that refused a record
	frontier frontier
	gap      uint64 // the ticket by which a missing id must have come, see [handed.take]

	sent   []int64   // published and not deleted
	sentAt time.Time // the first of them

	floor    int64
	mark     int64     // the frontier at markTime
	markTime time.Time // the floor moves to mark when this is floorAge ago
	lastFull time.Time
}

// rest is how a topic that refused a record is left alone: each time longer, until it takes one.
type rest struct {
	until time.Time
	wait  time.Duration
	said  time.Time // when the log was told last
}

const (
	firstRest = 50 * time.Millisecond
	sayEvery  = 10 * time.Second // while a topic goes on refusing
)

// run publishes until ctx ends and the outbox is empty, or live ends.
func (p *pump) run(ctx, live context.Context) error {
	stopping := ctx.Done()
	var flush <-chan time.Time // after the stop: when to give up
	expired := false
	for {
		n, empty, err := p.step(live, stopping == nil)
		if err != nil {
			if cause := context.Cause(live); cause != nil {
				err = cause
			}
			return err
		}
		if expired || (stopping == nil && empty) {
			return nil
		}
		if n > 0 {
			continue // and look for more at once
		}
		timer := time.NewTimer(p.idle())
		select {
		case <-p.wake:
		case <-timer.C:
		case <-live.Done():
		case <-stopping:
			stopping, flush = nil, time.After(p.cfg.Flush)
		case <-flush:
			expired = true
		}
		timer.Stop()
	}
}

// step publishes what there is, from memory where that is enough, and returns how many events. empty says that the table
// has none left.
func (p *pump) step(ctx context.Context, stopping bool) (n int, empty bool, err error) {
	if !stopping && p.frontier.closed() && len(p.resting) == 0 && time.Since(p.lastFull) < fullLookGap {
		rows, gap, look := p.handed.take(p.frontier.base, p.cfg.Batch, p.gap)
		p.gap = gap
		if !look {
			n := p.publish(ctx, rows)
			p.unread.Add(float64(n))
			if n < len(rows) {
				p.handed.lookSoon() // what failed is in the table
			}
			if len(p.sent) >= p.cfg.Batch || (len(p.sent) > 0 && time.Since(p.sentAt) >= deleteAfter) {
				return n, false, p.forget(ctx)
			}
			return n, false, nil
		}
	}
	p.gap = 0
	p.handed.looking()
	rows, snap, err := p.look(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("read outbox: %w", err)
	}
	rested := len(p.resting) > 0
	n = p.publish(ctx, rows)
	if !rested && n == len(rows) && n < p.cfg.Batch {
		p.frontier.looked(snap)
		p.handed.looked(&p.frontier)
	}
	return n, len(rows) == 0 && len(p.resting) == 0, nil
}

// forget deletes what was published.
func (p *pump) forget(ctx context.Context) error {
	if _, err := p.conn.Exec(ctx, deleteSQL, p.sent); err != nil {
		return fmt.Errorf("delete what was published: %w", err)
	}
	p.sent = p.sent[:0]
	return nil
}

// look deletes what was published and reads what comes next, in one round trip.
func (p *pump) look(ctx context.Context) (rows []row, snap snapshot, err error) {
	now := time.Now()
	snap.highest = p.frontier.highest
	if p.markTime.IsZero() || now.Sub(p.markTime) > floorAge {
		p.floor, p.mark, p.markTime = p.mark, p.frontier.base, now
	}
	from := p.floor
	if now.Sub(p.lastFull) >= fullLookGap {
		from, p.lastFull = 0, now
	}
	resting := make([]string, 0, len(p.resting))
	for topic, r := range p.resting {
		if now.Before(r.until) {
			resting = append(resting, topic)
		} else {
			from = 0 // what it refused may lie below the floor
		}
	}

	var b pgx.Batch
	if len(p.sent) > 0 {
		b.Queue(deleteSQL, p.sent)
	}
	// In this order: what ended before the first is seen by the second.
	b.Queue(snapshotSQL).QueryRow(func(r pgx.Row) error { return r.Scan(&snap.xmin) })
	b.Queue(nextSQL, from, resting, p.cfg.Batch).Query(func(r pgx.Rows) (err error) {
		rows, err = pgx.CollectRows(r, scanRow)
		return err
	})
	if p.frontier.wanting() {
		b.Queue(ownSQL).QueryRow(func(r pgx.Row) error { return r.Scan(&snap.own) })
	}
	if err := p.conn.SendBatch(ctx, &b).Close(); err != nil {
		return nil, snap, err
	}
	p.sent = p.sent[:0]
	if len(rows) == 0 { // then nothing of the topics whose rest is over is left to try
		maps.DeleteFunc(p.resting, func(_ string, r rest) bool { return !now.Before(r.until) })
	}
	return rows, snap, nil
}

func scanRow(r pgx.CollectableRow) (row, error) {
	var out row
	var headers string
	if err := r.Scan(&out.id, &out.record.Topic, &out.record.Key, &out.record.Value, &headers, &out.record.Time); err != nil {
		return row{}, err
	}
	var err error
	out.record.Headers, err = decodeHeaders(headers)
	return out, err
}

// publish returns how many of the rows the broker acknowledged.
func (p *pump) publish(ctx context.Context, rows []row) (n int) {
	if len(rows) == 0 {
		return 0
	}
	records := make([]broker.Record, len(rows))
	for i := range rows {
		records[i] = rows[i].record
	}
	p.batch.Observe(float64(len(rows)))
	failed := map[string]error{}
	for i, err := range p.producer.Produce(ctx, records) {
		topic := rows[i].record.Topic
		if err != nil {
			p.failed.Inc()
			failed[topic] = err
			continue
		}
		if len(p.sent) == 0 {
			p.sentAt = time.Now()
		}
		n++
		p.sent = append(p.sent, rows[i].id)
		p.frontier.publish(rows[i].id)
	}
	p.published.Add(float64(n))
	for i := range rows { // a topic of which one partition refuses goes on resting
		if topic := rows[i].record.Topic; failed[topic] == nil {
			delete(p.resting, topic)
		}
	}
	for topic, err := range failed {
		r := p.resting[topic]
		r.wait = min(max(2*r.wait, firstRest), p.cfg.Retry)
		now := time.Now()
		r.until = now.Add(r.wait)
		if now.Sub(r.said) >= sayEvery {
			r.said = now
			p.cfg.Log.Warn("events wait in the outbox", "topic", topic, "error", err)
		}
		p.resting[topic] = r
	}
	return n
}

// idle is how long there is nothing to do unless somebody wakes the relay.
func (p *pump) idle() time.Duration {
	wait := p.cfg.Poll
	for _, r := range p.resting {
		wait = min(wait, max(time.Until(r.until), 0))
	}
	if len(p.sent) > 0 {
		wait = min(wait, max(time.Until(p.sentAt.Add(deleteAfter)), 0))
	}
	return wait
}
