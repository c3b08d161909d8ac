// Package inbox remembers which messages a consumer has handled, in the transaction that handles them: the idempotent
// receiver. A message that is delivered again, by a rebalance, a crash, a relay that published twice or a zombie that
// wakes up, finds its row and has no second effect.
// (Hohpe and Woolf, "Enterprise Integration Patterns": Idempotent Receiver.)
package inbox

import (
	"context"
	"embed"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the inbox's schema: what was handled, and how far each consumer was.
func Migration() pg.Migration {
	return pg.Migration{Name: "inbox", FS: pg.Dir(migrations, "migrations")}
}

// Ids are inserted in order, so that two members that hold the same messages after a rebalance wait for each other
// instead of deadlocking. Whoever comes second waits for the outcome of the first.
const recordSQL = `INSERT INTO inbox (consumer, id) SELECT $1, id FROM unnest($2::uuid[]) AS id ORDER BY id`

const seenSQL = `SELECT id FROM inbox WHERE consumer = $1 AND id = ANY($2)`

// Querier is what reading the inbox needs of a transaction or pool.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Record queues the statement that marks messages as handled by consumer, for the end of the transaction that handles
// them; ids are distinct. If one of them was handled before, the statement fails with an error that [Duplicate] knows,
// and all that the transaction did is undone: do it again without what [Seen] returns.
//
// Nearly no message comes twice, so a consumer needs no look at the inbox before it works, only this one statement on
// the way to its commit.
func Record(b *pgx.Batch, consumer string, ids []uuid.UUID) {
	if len(ids) > 0 {
		b.Queue(recordSQL, consumer, ids)
	}
}

// Seen returns those of the messages that consumer has handled before.
func Seen(ctx context.Context, tx Querier, consumer string, ids []uuid.UUID) (map[uuid.UUID]bool, error) {
	rows, _ := tx.Query(ctx, seenSQL, consumer, ids) // the error surfaces in the collector
	seen := map[uuid.UUID]bool{}
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { seen[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("look for %d messages in the inbox of %s: %w", len(ids), consumer, err)
	}
	return seen, nil
}

// primaryKey is the name that PostgreSQL gives the table's key.
const primaryKey = "inbox_pkey"

// Duplicate tells whether err comes from [Record]: the transaction had a message that was handled before.
func Duplicate(err error) bool {
	return pg.Violates(err, primaryKey)
}

// Forever is the suffix of consumer names whose rows [Prune] leaves alone.
const Forever = "@redrive"

const nextConsumerSQL = `SELECT consumer FROM inbox WHERE consumer > $1 ORDER BY consumer LIMIT 1`

// pruneSQL walks one consumer's part of the primary key from its oldest id, and ends where ids are too young to have an
// old row, so a step costs what it deletes. The row's own age decides, not the id's: a consumer that catches up after a
// long outage handles old ids, and must remember them as long.
const pruneSQL = `WITH old AS (
    SELECT id FROM inbox
    WHERE consumer = $1 AND id > $2 AND id < $3 AND seen_at < $4
    ORDER BY id LIMIT $5
), gone AS (
    DELETE FROM inbox i USING old WHERE i.consumer = $1 AND i.id = old.id
)
SELECT id FROM old ORDER BY id`

// pruneTimelessSQL deletes, oldest first, rows whose ids tell no time of the past: foreign and random ones. Its
// conditions are those of the index inbox_timeless, which has these rows only.
const pruneTimelessSQL = `DELETE FROM inbox WHERE (consumer, id) IN (
    SELECT consumer, id FROM inbox
    WHERE (uuid_extract_version(id) IS DISTINCT FROM 7 OR id >= '03bb2cc3-d800-7000-8000-000000000000')
      AND seen_at < $1 AND consumer NOT LIKE '%@redrive'
    ORDER BY seen_at LIMIT $2
)`

// Consumers lists the consumers that the inbox has rows of, without those of [Forever]. It costs one look into the
// index for each.
func Consumers(ctx context.Context, db Querier) ([]string, error) {
	var all []string
	for last := ""; ; {
		rows, _ := db.Query(ctx, nextConsumerSQL, last) // the error surfaces in the collector
		next, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("list the consumers of the inbox: %w", err)
		}
		if len(next) == 0 {
			return all, nil
		}
		if last = next[0]; !strings.HasSuffix(last, Forever) {
			all = append(all, last)
		}
	}
}

// Pruner is what [Prune] needs of a pool.
type Pruner interface {
	Querier
	Execer
}

// Prune deletes rows older than retention in steps of at most step rows, each a transaction of its own, until none is
// left or ctx ends, and returns how many went. Retention must exceed how late a duplicate can come; what comes later
// still, because Kafka or an operator begins anew, is known by its [Floor], which is noted first.
func Prune(ctx context.Context, db Pruner, retention time.Duration, step int) (int, error) {
	cutoff := clock.Now().Add(-retention)
	total := 0
	consumers, err := Consumers(ctx, db)
	if err != nil {
		return 0, err
	}
	for _, consumer := range consumers {
		for id, n := uuid.Nil, step; n == step; {
			rows, _ := db.Query(ctx, pruneSQL, consumer, id, firstID(cutoff), cutoff, step)
			n = 0
			if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { n++; return nil }); err != nil {
				return total, fmt.Errorf("prune inbox of %s: %w", consumer, err)
			}
			total += n
		}
	}
	for n := step; n == step; {
		tag, err := db.Exec(ctx, pruneTimelessSQL, cutoff, step)
		if err != nil {
			return total, fmt.Errorf("prune inbox of ids without a time: %w", err)
		}
		n = int(tag.RowsAffected())
		total += n
	}
	return total, nil
}

// firstID is the least UUIDv7 of a moment: 48 bits of Unix milliseconds come first (RFC 9562, 5.7).
func firstID(t time.Time) (id uuid.UUID) {
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
