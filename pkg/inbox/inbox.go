// Package inbox remembers which messages a consumer has handled, in the transaction that handles them: the idempotent
// receiver. A message that is delivered again, by a rebalance, a crash, a relay that published twice or a zombie that
// wakes up, finds its row and has no second effect.
// (Hohpe and Woolf, "Enterprise Integration Patterns": Idempotent Receiver.)
package inbox

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the inbox's schema: one table.
func Migration() pg.Migration {
	return pg.Migration{Name: "inbox", FS: pg.Dir(migrations, "migrations")}
}

// Ids are inserted in order, so that two members that hold the same messages after a rebalance wait for each other
// instead of deadlocking. DO NOTHING waits for a concurrent insert of the same id to commit or roll back, and, unlike
// catching the violation, leaves the transaction usable.
const claimSQL = `INSERT INTO inbox (consumer, id)
SELECT $1, id FROM unnest($2::uuid[]) AS id ORDER BY id
ON CONFLICT DO NOTHING RETURNING id`

// Querier is what Claim needs of a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Claim marks messages as handled by consumer and returns those that were not before: only these may be worked on, in
// the same transaction. An id that occurs twice is returned once. When another transaction is handling one of them, Claim
// waits for its outcome.
func Claim(ctx context.Context, tx Querier, consumer string, ids []uuid.UUID) (map[uuid.UUID]bool, error) {
	rows, _ := tx.Query(ctx, claimSQL, consumer, ids) // the error surfaces in the collector
	fresh := make(map[uuid.UUID]bool, len(ids))
	var id uuid.UUID
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { fresh[id] = true; return nil }); err != nil {
		return nil, fmt.Errorf("claim %d messages in the inbox of %s: %w", len(ids), consumer, err)
	}
	return fresh, nil
}

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

// Prune deletes rows older than retention in steps of at most step rows, each a transaction of its own, until none is
// left or ctx ends, and returns how many went. Retention must exceed how late a duplicate can come: the broker's own
// retention is the natural bound.
func Prune(ctx context.Context, db Querier, retention time.Duration, step int) (int, error) {
	cutoff := clock.Now().Add(-retention)
	total, consumer := 0, ""
	for {
		rows, _ := db.Query(ctx, nextConsumerSQL, consumer)
		next, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return total, fmt.Errorf("prune inbox: %w", err)
		}
		if len(next) == 0 {
			return total, nil
		}
		consumer = next[0]
		for id, n := uuid.Nil, step; n == step; {
			rows, _ := db.Query(ctx, pruneSQL, consumer, id, firstID(cutoff), cutoff, step)
			n = 0
			if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { n++; return nil }); err != nil {
				return total, fmt.Errorf("prune inbox of %s: %w", consumer, err)
			}
			total += n
		}
	}
}

// firstID is the least UUIDv7 of a moment: 48 bits of Unix milliseconds come first (RFC 9562, 5.7).
func firstID(t time.Time) (id uuid.UUID) {
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
