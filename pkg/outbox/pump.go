package outbox

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// Rows are read from a floor upwards. Below it everything was published a while ago, and only rows of transactions that
// took long can still appear there; a look from zero every so often finds them. Without a floor each read walks over the
// deleted rows that vacuum cannot remove while some old transaction is open elsewhere.
const (
	floorAge    = time.Second
	fullLookGap = time.Second
)

const deleteSQL = `DELETE FROM outbox WHERE id = ANY($1)`

const nextSQL = `SELECT id, topic, key, value, headers, created_at FROM outbox
WHERE id >= $1 AND topic <> ALL($2) ORDER BY id LIMIT $3`

type row struct {
	id     int64
	record broker.Record
}

// pump is the leader's loop and what it remembers.
type pump struct {
	*Relay
	conn *pgx.Conn

	resting  map[string]rest // topics that refused a record
	floor    int64
	mark     int64     // highest id published by markTime
	markTime time.Time // the floor moves to mark when this is floorAge ago
	highest  int64
	lastFull time.Time
}

// rest is how a topic that refused a record is left alone: each time longer, until it takes one.
type rest struct {
	until time.Time
	wait  time.Duration
}

const firstRest = 50 * time.Millisecond

// run publishes until ctx ends and the outbox is empty, or live ends.
func (p *pump) run(ctx, live context.Context) error {
	stopping := ctx.Done()
	var flush <-chan time.Time // after the stop: when to give up
	expired := false
	var sent []int64
	for {
		rows, err := p.next(live, sent)
		if err != nil {
			if cause := context.Cause(live); cause != nil {
				err = cause
			}
			return fmt.Errorf("read outbox: %w", err)
		}
		if expired || (stopping == nil && len(rows) == 0 && len(p.resting) == 0) {
			return nil
		}
		if sent = p.publish(live, rows, sent[:0]); len(sent) > 0 {
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

// next deletes what was sent and reads what comes next, in one round trip and one transaction.
func (p *pump) next(ctx context.Context, sent []int64) ([]row, error) {
	now := time.Now()
	if p.markTime.IsZero() || now.Sub(p.markTime) > floorAge {
		p.floor, p.mark, p.markTime = p.mark, p.highest, now
	}
	from := p.floor
	if now.Sub(p.lastFull) > fullLookGap {
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
	if len(sent) > 0 {
		b.Queue(deleteSQL, sent)
	}
	b.Queue(nextSQL, from, resting, p.cfg.Batch)
	res := p.conn.SendBatch(ctx, &b)
	defer res.Close() //nolint:errcheck // read to its end below, where its error is seen
	if len(sent) > 0 {
		if _, err := res.Exec(); err != nil {
			return nil, err
		}
		p.published.Add(float64(len(sent)))
	}
	found, _ := res.Query() // the error surfaces in the collector
	rows, err := pgx.CollectRows(found, scanRow)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 { // then nothing of the topics whose rest is over is left to try
		maps.DeleteFunc(p.resting, func(_ string, r rest) bool { return !now.Before(r.until) })
	}
	return rows, res.Close()
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

// publish returns the ids that the broker acknowledged.
func (p *pump) publish(ctx context.Context, rows []row, sent []int64) []int64 {
	if len(rows) == 0 {
		return sent
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
		sent = append(sent, rows[i].id)
		p.highest = max(p.highest, rows[i].id)
		delete(p.resting, topic)
	}
	for topic, err := range failed {
		r := p.resting[topic]
		r.wait = min(max(2*r.wait, firstRest), p.cfg.Retry)
		r.until = time.Now().Add(r.wait)
		p.resting[topic] = r
		p.cfg.Log.Warn("events wait in the outbox", "topic", topic, "error", err, "retry", r.wait)
	}
	return sent
}

// idle is how long there is nothing to do unless somebody wakes the relay.
func (p *pump) idle() time.Duration {
	wait := p.cfg.Poll
	for _, r := range p.resting {
		wait = min(wait, max(time.Until(r.until), 0))
	}
	return wait
}
