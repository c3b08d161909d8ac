package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/pg"
)

// Kafka can lose what it has acknowledged: all replicas of a partition lose their power before they have written to
// disk, a replica that was behind is made leader, a topic is deleted. So published rows are kept for a while, and the
// relay watches where the partitions end: an end, or the offset of an acknowledgement, that is not beyond the offsets
// acknowledged before says that the log was cut. So does where a new leader began, if others have written since what
// hides the cut. Then what is kept from there on goes back into the outbox, under its ids of before, and so ahead of
// what came later.
//
// Rows are kept in two tables that take turns: each takes rows for [Config.Keep] at least, and is emptied when its turn
// comes again.

// The same statement for either table.
const (
	// The ids come as one array, as they would to a plain DELETE, so that they are looked up whatever the planner
	// thinks of the table; the join is with what was deleted, by hash: see [setUpSQL].
	goneRows = `WITH gone AS (DELETE FROM outbox WHERE id = ANY($1) RETURNING id, topic, key, value, headers),
	rows AS (SELECT id, topic, partition, kafka_offset, key, value, headers FROM gone
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

// A row that waits already stays as it is.
const recoverSQL = `WITH back_0 AS (
	DELETE FROM outbox_kept_0 WHERE topic = $1 AND partition = $2 AND kafka_offset >= $3 RETURNING id, kafka_offset, key, value, headers),
back_1 AS (
	DELETE FROM outbox_kept_1 WHERE topic = $1 AND partition = $2 AND kafka_offset >= $3 RETURNING id, kafka_offset, key, value, headers),
back AS (SELECT * FROM back_0 UNION ALL SELECT * FROM back_1),
again AS (
	INSERT INTO outbox (id, topic, key, value, headers) OVERRIDING SYSTEM VALUE
	SELECT id, $1, key, value, headers FROM back ORDER BY id ON CONFLICT (id) DO NOTHING)
SELECT count(*), coalesce(min(kafka_offset), -1) FROM back`

// A table that is empty on the other side, and nothing in this one: then there is nothing to empty, now or at the next
// turn.
const (
	nextTurnSQL = `UPDATE outbox_turn SET turn = 1 - turn, since = now() WHERE turn = $1 AND since <= now() - $2::interval
	AND (EXISTS (SELECT FROM outbox_kept_0) OR EXISTS (SELECT FROM outbox_kept_1))`
	empty0SQL = `TRUNCATE outbox_kept_0`
	empty1SQL = `TRUNCATE outbox_kept_1`
	// Whoever reads a kept table, a backup perhaps, is not waited for: others would wait behind.
	hurrySQL = `SET LOCAL lock_timeout = '1s'`
)

const (
	// checkEvery is how often the ends of the partitions are asked for. A broker takes longer to start, so a restart
	// does not go unseen.
	checkEvery = time.Second
	// doubtEvery is the same while some are in doubt, and doubtWithin how long one broker may hold up the answers of
	// the others.
	doubtEvery, doubtWithin = 100 * time.Millisecond, 2 * time.Second
	// recoverWithin bounds what is rare and may have much to read.
	recoverWithin = time.Minute
	// learnWithin bounds how long a new leader reads what its predecessor has kept, before it publishes.
	learnWithin = 5 * time.Second
)

// learn reads whose turn it is and what was acknowledged to the leader before. Where there is too much to read, the
// relay goes on without: it will not notice what was lost before its time.
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
	m := mark{epoch: broker.NoEpoch}
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
	p.ledger.inherit(marks)
	return nil
}

// watch asks where the partitions end, tells the pump of those that were cut, and lets the tables take turns, until ctx
// ends.
func (p *pump) watch(ctx context.Context) {
	if p.cfg.Keep < 0 {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var faults quiet.Log
	var tried time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-p.ledger.look:
		}
		for _, c := range p.findCuts(ctx, &faults) {
			select {
			case p.ledger.cuts <- c:
			case <-ctx.Done():
				return
			}
		}
		next := checkEvery
		if p.ledger.doubted() != nil { // what they have lost may be among what is kept
			next = doubtEvery
		} else if time.Since(tried) >= p.cfg.Keep/6 {
			tried = time.Now()
			if err := p.takeTurns(ctx); err != nil && ctx.Err() == nil {
				p.cfg.Log.Debug("published events are kept a little longer", "error", err)
			}
		}
		timer.Reset(next)
	}
}

// findCuts compares the partitions' ends with what was acknowledged. Those of which no broker tells the end now are in
// doubt until one does.
func (p *pump) findCuts(ctx context.Context, faults *quiet.Log) []cut {
	const fault = "ends"
	asked := time.Now()
	marks, cures := p.ledger.recent(p.cfg.Keep)
	if len(marks) == 0 {
		return nil
	}
	epochs := make(map[broker.TopicPartition]int32, len(marks))
	for tp, m := range marks {
		epochs[tp] = m.epoch
	}
	actx, cancel := context.WithTimeout(ctx, doubtWithin)
	defer cancel()
	ends, err := p.producer.Ends(actx, epochs)
	if ctx.Err() != nil {
		return nil
	}
	if len(ends) < len(marks) {
		faults.Warn(ctx, p.cfg.Log, fault, "where partitions end is not known; their events wait", "partitions", len(marks)-len(ends), "error", err)
	} else {
		faults.Over(ctx, p.cfg.Log, fault, "where partitions end is known again")
	}
	cuts, cleared, lost := p.ledger.answered(asked, marks, cures, ends)
	if cleared {
		p.signal()
	}
	for _, tp := range lost {
		p.cfg.Log.Error("events that Kafka may have lost are not kept any longer: nobody has told for so long where the partition ends",
			"topic", tp.Topic, "partition", tp.Partition, "waited", doubtMost)
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
		p.again = true
		p.republished.Add(float64(n))
		note := "all that were lost are published again"
		if lost := c.was + 1 - c.at; n < lost {
			note = fmt.Sprintf("%d more were lost, by other producers or published longer ago than events are kept", lost-n)
		}
		p.cfg.Log.Error("Kafka lost events that it had acknowledged; they are published again", "topic", c.tp.Topic, "partition", c.tp.Partition,
			"end", c.at, "acknowledged", c.was, "republished", n, "first", first, "note", note)
	}
	return nil
}
