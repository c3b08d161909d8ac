package outbox

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/quiet"
)

// Rows are read from a floor upwards, the frontier of a while ago: nothing can appear below. Without a floor each read
// walks over the deleted rows that vacuum cannot remove while some old transaction is open elsewhere, and over those
// that wait in lanes. A look from zero every so often also finds the events of those who emit without holding a lock;
// while lanes have much to wait for, it sees one batch at a time and goes on where it left.
const (
	floorAge    = time.Second
	fullLookGap = time.Second
)

// deleteAfter is how long published rows may wait for others, to be deleted together.
const deleteAfter = 100 * time.Millisecond

const nextSQL = `SELECT id, topic, key, value, headers, created_at FROM outbox WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3`

const theseSQL = `SELECT id, topic, key, value, headers, created_at FROM outbox WHERE id = ANY($1) ORDER BY id`

const snapshotSQL = `SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint, (SELECT last_value FROM outbox_id_seq)`

// Not a snapshot's xmax: that is the last transaction that has ended, and one, not the last that has begun.
const ownSQL = `SELECT pg_current_xact_id()::text::bigint`

type row struct {
	id     int64
	record broker.Record
}

// pump is the leader's loop and what it remembers.
type pump struct {
	*Relay
	conn   *pgx.Conn
	ledger *ledger

	lanes    lanes // of the partitions that refused a record
	retrying bool  // events of lanes are with the broker
	retried  chan attempt
	refusals quiet.Log // by lane
	again    bool      // a lane has come to events that only the table knows

	frontier frontier
	gap      uint64 // the ticket by which a missing id must have come, see [handed.take]
	sent     sent

	page     int64    // where a look that has read a full batch goes on, up to the last id of its snapshot; 0: none has
	snap     snapshot // that such a look began with
	swept    int64    // where the look from zero goes on
	floor    int64
	mark     int64     // the frontier at markTime
	markTime time.Time // the floor moves to mark when this is floorAge ago
	lastFull time.Time
}

// sent is what was published and not taken out of the table yet.
type sent struct {
	ids        []int64
	partitions []int32
	offsets    []int64
	since      time.Time // the first of them
}

func (s *sent) add(id int64, r *broker.Record) {
	if len(s.ids) == 0 {
		s.since = time.Now()
	}
	s.ids, s.partitions, s.offsets = append(s.ids, id), append(s.partitions, int32(r.Partition)), append(s.offsets, r.Offset)
}

func (s *sent) clear() { s.ids, s.partitions, s.offsets = s.ids[:0], s.partitions[:0], s.offsets[:0] }

func newPump(r *Relay, conn *pgx.Conn) *pump {
	return &pump{Relay: r, conn: conn, ledger: newLedger(), lanes: newLanes(), retried: make(chan attempt, 1)}
}

// run publishes until ctx ends and the outbox is empty, or live ends. It starts goroutines in beside, which end with
// live.
func (p *pump) run(ctx, live context.Context, beside *sync.WaitGroup) error {
	stopping := ctx.Done()
	var flush <-chan time.Time // after the stop: when to give up
	expired := false
	for {
		more, empty, err := p.step(live, stopping == nil, beside)
		if err != nil {
			if cause := context.Cause(live); cause != nil {
				err = cause
			}
			return err
		}
		if expired || (stopping == nil && empty) {
			return nil
		}
		due, forget := p.due(more)
		select {
		case <-p.wake:
		case <-due:
		case a := <-p.retried:
			_, err = p.settle(live, a)
		case c := <-p.ledger.cuts:
			err = p.mend(live, c)
		case <-live.Done():
		case <-stopping:
			stopping, flush = nil, time.After(p.cfg.Flush)
		case <-flush:
			expired = true
		}
		forget()
		if err != nil {
			return err
		}
	}
}

// atOnce is due already.
var atOnce = func() <-chan time.Time { c := make(chan time.Time); close(c); return c }()

// due says when there is something to do even if nobody wakes the relay: at once, when there is more. stop frees what
// it takes.
func (p *pump) due(more bool) (at <-chan time.Time, stop func()) {
	if more {
		return atOnce, func() {}
	}
	now := time.Now()
	wait := p.cfg.Poll
	if !p.retrying {
		wait = p.lanes.next(now, wait, p.ledger.doubted())
	}
	if len(p.sent.ids) > 0 {
		wait = min(wait, max(p.sent.since.Add(deleteAfter).Sub(now), 0))
	}
	timer := time.NewTimer(wait)
	return timer.C, func() { timer.Stop() }
}

// step publishes what there is, from memory where that is enough. more says that there may be something left to do at
// once, empty that the table has nothing left.
func (p *pump) step(ctx context.Context, stopping bool, beside *sync.WaitGroup) (more, empty bool, err error) {
	if err := p.retry(ctx, beside); err != nil {
		return false, false, err
	}
	full := time.Since(p.lastFull) >= fullLookGap
	if !stopping && !full && p.page == 0 && p.frontier.closed() {
		rows, gap, look := p.handed.take(p.frontier.base, p.cfg.Batch, p.gap)
		p.gap = gap
		if !look {
			n, err := p.publish(ctx, rows)
			p.unread.Add(float64(n))
			if err == nil && (len(p.sent.ids) >= p.cfg.Batch || (len(p.sent.ids) > 0 && time.Since(p.sent.since) >= deleteAfter)) {
				err = p.forget(ctx)
			}
			return len(rows) > 0, false, err
		}
	}
	p.gap = 0
	if full {
		p.lastFull = time.Now()
		if len(p.lanes.of) > 0 {
			return true, false, p.sweep(ctx)
		}
	}
	return p.look(ctx, full)
}

// sweep looks below the floor for what should not be there, one batch at a time.
func (p *pump) sweep(ctx context.Context) error {
	rows, _, err := p.read(ctx, p.swept, math.MaxInt64)
	if err != nil {
		return err
	}
	p.swept = 0
	if len(rows) == p.cfg.Batch && rows[len(rows)-1].id < p.floor {
		p.swept = rows[len(rows)-1].id + 1
	}
	_, err = p.publish(ctx, rows)
	return err
}

// look reads the table from the floor upwards, or all of it, a batch at a time, and publishes what it finds.
//
// A later batch sees more than the first one did. So it ends at the last id that was taken when the look began: an
// event that was committed since, below where the first batch ended, has no successor up to there; beyond, one could be
// found without it.
func (p *pump) look(ctx context.Context, all bool) (more, empty bool, err error) {
	from, to := p.page, p.snap.last
	if from == 0 {
		to = math.MaxInt64
		p.handed.looking()
		if now := time.Now(); p.markTime.IsZero() || now.Sub(p.markTime) > floorAge {
			p.floor, p.mark, p.markTime = p.mark, p.frontier.base, now
		}
		if !all {
			from = p.floor
		}
	}
	rows, snap, err := p.read(ctx, from, to)
	if err != nil {
		return false, false, err
	}
	if p.page == 0 {
		p.snap = snap
	}
	n, err := p.publish(ctx, rows)
	if err != nil {
		return false, false, err
	}
	if len(rows) == p.cfg.Batch {
		p.page = rows[len(rows)-1].id + 1
		return true, false, nil
	}
	ended := p.page > 0 // and there may be events that came since it began
	p.page = 0
	p.frontier.looked(p.snap)
	p.handed.looked(&p.frontier)
	return ended || n > 0, !ended && len(rows) == 0 && len(p.lanes.of) == 0, nil
}

// read takes what was published out of the table and reads what comes next, in one round trip.
func (p *pump) read(ctx context.Context, from, to int64) (rows []row, snap snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, workWithin)
	defer cancel()
	snap.highest = p.frontier.highest
	var b pgx.Batch
	p.forgetting(&b)
	// In this order: what ended before the first is seen by the second.
	b.Queue(snapshotSQL).QueryRow(func(r pgx.Row) error { return r.Scan(&snap.xmin, &snap.last) })
	b.Queue(nextSQL, from, to, p.cfg.Batch).Query(func(r pgx.Rows) (err error) {
		rows, err = pgx.CollectRows(r, scanRow)
		return err
	})
	if p.frontier.wanting() {
		b.Queue(ownSQL).QueryRow(func(r pgx.Row) error { return r.Scan(&snap.own) })
	}
	if err := p.conn.SendBatch(ctx, &b).Close(); err != nil {
		return nil, snap, fmt.Errorf("read outbox: %w", err)
	}
	p.sent.clear()
	return rows, snap, nil
}

// forget takes what was published out of the table.
func (p *pump) forget(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, workWithin)
	defer cancel()
	var b pgx.Batch
	p.forgetting(&b)
	if err := p.conn.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("delete what was published: %w", err)
	}
	p.sent.clear()
	return nil
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
