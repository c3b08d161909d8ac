package outbox

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
)

// Kafka can lose what it has acknowledged: all replicas of a partition lose their power before they have written to disk, a replica that
// was behind is made leader, a topic is deleted. So published rows are kept for a while, and the relay watches where the
// partitions end: an end, or the offset of an acknowledgement, that is not beyond the offsets acknowledged before says that the log
// was cut. Then what is kept from there on goes back into the outbox.
//
// Rows are kept in two tables that take turns: each takes rows for [Config.Keep] at least, and is emptied when its turn comes again.

// The same statement for either table.
const (
	// The ids come as one array, as they would to a plain DELETE, so that they are looked up whatever the planner thinks of the
	// table; the join is with what was deleted, by hash: see [setUpSQL].
	goneRows = `WITH gone AS (DELETE FROM outbox WHERE id = ANY($1) RETURNING id, topic, key, value, headers),
	rows AS (SELECT topic, partition, kafka_offset, key, value, headers FROM gone
	JOIN unnest($1::bigint[], $2::int[], $3::bigint[]) AS s (id, partition, kafka_offset) USING (id)) `
	keep0SQL = goneRows + `INSERT INTO outbox_kept_0 SELECT * FROM rows`
	keep1SQL = goneRows + `INSERT INTO outbox_kept_1 SELECT * FROM rows`

	deleteSQL = `DELETE FROM outbox WHERE id = ANY($1)`
)

// A new leader learns from the table what the one before it has been acknowledged.
const marksSQL = `SELECT topic, partition, max(kafka_offset)
FROM (SELECT topic, partition, kafka_offset FROM outbox_kept_0 UNION ALL SELECT topic, partition, kafka_offset FROM outbox_kept_1) AS kept
GROUP BY topic, partition`

const turnSQL = `SELECT turn FROM outbox_turn`

// Ids come in the order of the offsets, and so do the events when they are published again.
const recoverSQL = `WITH back_0 AS (
	DELETE FROM outbox_kept_0 WHERE topic = $1 AND partition = $2 AND kafka_offset >= $3 RETURNING kafka_offset, key, value, headers),
back_1 AS (
	DELETE FROM outbox_kept_1 WHERE topic = $1 AND partition = $2 AND kafka_offset >= $3 RETURNING kafka_offset, key, value, headers),
back AS (SELECT * FROM back_0 UNION ALL SELECT * FROM back_1),
again AS (
	INSERT INTO outbox (topic, key, value, headers) SELECT $1, key, value, headers FROM back ORDER BY kafka_offset RETURNING id)
SELECT (SELECT count(*) FROM again), coalesce((SELECT min(kafka_offset) FROM back), -1)`

// A table that is empty on the other side, and nothing in this one: then there is nothing to empty, now or at the next turn.
const (
	nextTurnSQL = `UPDATE outbox_turn SET turn = 1 - turn, since = now() WHERE turn = $1 AND since <= now() - $2::interval
	AND (EXISTS (SELECT FROM outbox_kept_0) OR EXISTS (SELECT FROM outbox_kept_1))`
	empty0SQL = `TRUNCATE outbox_kept_0`
	empty1SQL = `TRUNCATE outbox_kept_1`
	// Whoever reads a kept table, a backup perhaps, is not waited for: others would wait behind.
	hurrySQL = `SET LOCAL lock_timeout = '1s'`
)

const (
	// checkEvery is how often the ends of the partitions are asked for.
	checkEvery = 3 * time.Second
	// recoverWithin bounds what is rare and may have much to read.
	recoverWithin = time.Minute
	// learnWithin bounds how long a new leader reads what its predecessor has kept, before it publishes.
	learnWithin = 5 * time.Second
)

// ledger is what the broker has acknowledged, by partition. The pump writes it, and the watch reads it.
type ledger struct {
	turn atomic.Int32 // the table that takes the rows
	cuts chan cut     // for the pump

	mu    sync.Mutex
	marks map[broker.TopicPartition]mark
	calls uint64                        // counts publications
	cures map[broker.TopicPartition]int // how often each was mended
}

// mark is the highest offset that was acknowledged in a partition.
type mark struct {
	offset int64
	call   uint64 // by which it was
	at     time.Time
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
	return &ledger{cuts: make(chan cut), marks: map[broker.TopicPartition]mark{}, cures: map[broker.TopicPartition]int{}}
}

// begin numbers a publication.
func (l *ledger) begin() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

// acknowledged notes the records without an error, and returns the partitions that were cut: they acknowledged an offset that had
// been acknowledged before the publication began.
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
		if known && r.Offset <= m.offset {
			if m.call > began { // another publication beside this one raised it
				continue
			}
			cuts = append(cuts, cut{tp: tp, at: r.Offset, was: m.offset, cures: l.cures[tp]})
		}
		l.marks[tp] = mark{r.Offset, l.calls, now}
	}
	return cuts
}

// cured forgets what was acknowledged from the cut on.
func (l *ledger) cured(c cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cures[c.tp]++
	if c.ended {
		delete(l.marks, c.tp)
	}
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
	maps.DeleteFunc(l.marks, func(_ broker.TopicPartition, m mark) bool { return m.at.Before(oldest) })
	return maps.Clone(l.marks), maps.Clone(l.cures)
}

// learn reads whose turn it is and what was acknowledged to the leader before. Where there is too much to read, the relay goes on
// without: it will not notice what was lost before its time.
func (p *pump) learn(ctx context.Context) error {
	if p.cfg.Keep < 0 {
		return nil
	}
	var turn int32
	if err := p.conn.QueryRow(ctx, turnSQL).Scan(&turn); err != nil {
		return fmt.Errorf("read which table keeps published events: %w", err)
	}
	p.ledger.turn.Store(turn)
	rctx, cancel := context.WithTimeout(ctx, learnWithin)
	defer cancel()
	marks := map[broker.TopicPartition]mark{}
	var m mark
	var tp broker.TopicPartition
	rows, _ := p.pool.Query(rctx, marksSQL) // the error surfaces below
	_, err := pgx.ForEachRow(rows, []any{&tp.Topic, &tp.Partition, &m.offset}, func() error {
		m.at = time.Now()
		marks[tp] = m
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		p.cfg.Log.Warn("what was published before is not watched for losses", "error", err)
		return nil
	}
	p.ledger.mu.Lock()
	defer p.ledger.mu.Unlock()
	p.ledger.marks = marks
	return nil
}

// watch asks where the partitions end, tells the pump of those that were cut, and lets the tables take turns, until ctx ends.
func (p *pump) watch(ctx context.Context) {
	if p.cfg.Keep < 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var tried time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		for _, c := range p.findCuts(ctx) {
			select {
			case p.ledger.cuts <- c:
			case <-ctx.Done():
				return
			}
		}
		if time.Since(tried) >= p.cfg.Keep/6 {
			tried = time.Now()
			if err := p.takeTurns(ctx); err != nil && ctx.Err() == nil {
				p.cfg.Log.Debug("published events are kept a little longer", "error", err)
			}
		}
		timer.Reset(checkEvery)
	}
}

// findCuts compares the partitions' ends with what was acknowledged. A broker that does not answer is asked again the next time.
func (p *pump) findCuts(ctx context.Context) (cuts []cut) {
	marks, cures := p.ledger.recent(p.cfg.Keep)
	if len(marks) == 0 {
		return nil
	}
	tps := make([]broker.TopicPartition, 0, len(marks))
	for tp := range marks {
		tps = append(tps, tp)
	}
	ends, err := p.producer.Ends(ctx, tps)
	if err != nil {
		return nil
	}
	for tp, m := range marks {
		if end, known := ends[tp]; known && end <= m.offset {
			cuts = append(cuts, cut{tp: tp, at: end, was: m.offset, cures: cures[tp], ended: true})
		}
	}
	return cuts
}

// takeTurns empties the other table when this one has had its time, and has it take the rows.
func (p *pump) takeTurns(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, workWithin)
	defer cancel()
	turn := p.ledger.turn.Load()
	empty := []string{empty1SQL, empty0SQL}[turn]
	changed := false
	err := pg.InTx(ctx, p.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, nextTurnSQL, turn, p.cfg.Keep)
		if changed = tag.RowsAffected() > 0; err != nil || !changed {
			return err
		}
		if _, err := tx.Exec(ctx, hurrySQL); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, empty)
		return err
	})
	if err == nil && changed {
		p.ledger.turn.Store(1 - turn)
	}
	return err
}

// forgetting is the statement that takes what was published out of the outbox.
func (p *pump) forgetting(b *pgx.Batch) {
	s := &p.sent
	switch {
	case len(s.ids) == 0:
	case p.cfg.Keep < 0:
		b.Queue(deleteSQL, s.ids)
	case p.ledger.turn.Load() == 0:
		b.Queue(keep0SQL, s.ids, s.partitions, s.offsets)
	default:
		b.Queue(keep1SQL, s.ids, s.partitions, s.offsets)
	}
}

// mend puts back into the outbox what was lost with the end of a log, and tells of it.
func (p *pump) mend(ctx context.Context, cuts ...cut) error {
	for _, c := range cuts {
		if p.ledger.stale(c) {
			continue
		}
		if err := p.forget(ctx); err != nil { // so that all that was lost is kept
			return err
		}
		rctx, cancel := context.WithTimeout(ctx, recoverWithin)
		var n, first int64
		err := p.conn.QueryRow(rctx, recoverSQL, c.tp.Topic, c.tp.Partition, c.at).Scan(&n, &first)
		cancel()
		if err != nil {
			return fmt.Errorf("put back what %s/%d lost: %w", c.tp.Topic, c.tp.Partition, err)
		}
		p.ledger.cured(c)
		p.republished.Add(float64(n))
		p.handed.lookSoon()
		note := "all that were lost are published again"
		if lost := c.was + 1 - c.at; n < lost {
			note = fmt.Sprintf("%d more were lost, by other producers or published longer ago than events are kept", lost-n)
		}
		p.cfg.Log.Error("Kafka lost events that it had acknowledged; they are published again", "topic", c.tp.Topic, "partition", c.tp.Partition,
			"end", c.at, "acknowledged", c.was, "republished", n, "first", first, "note", note)
	}
	return nil
}
