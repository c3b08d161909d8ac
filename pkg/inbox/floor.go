package inbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Floor is how far a consumer was in a partition at least: all messages below Next were handled.
type Floor struct {
	Topic     string
	Partition int
	Next      int64
	Noted     time.Time // when it rose last; set by [Floors]
}

// Execer is what noting needs of a transaction or pool.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// A floor only rises: a group that was set back handles what is younger than the inbox again by the inbox alone.
const noteSQL = `INSERT INTO inbox_floor AS f (consumer, topic, partition, next_offset)
SELECT $1, * FROM unnest($2::text[], $3::int[], $4::bigint[]) AS n (topic, partition, next_offset) ORDER BY topic, partition
ON CONFLICT (consumer, topic, partition) DO UPDATE SET next_offset = excluded.next_offset, noted_at = excluded.noted_at
WHERE f.next_offset < excluded.next_offset`

const floorsSQL = `SELECT topic, partition, next_offset, noted_at FROM inbox_floor WHERE consumer = $1`

const forgetSQL = `DELETE FROM inbox_floor WHERE consumer = $1 AND topic = $2 AND partition = $3`

// Note keeps how far a consumer is, for the time after [Prune] has deleted the rows of what it handled, and after Kafka
// has forgotten its offsets. Call it before Prune with what the consumer has committed to Kafka. A floor is never
// lowered.
func Note(ctx context.Context, db Execer, consumer string, floors []Floor) error {
	if len(floors) == 0 {
		return nil
	}
	topics, partitions, next := make([]string, len(floors)), make([]int, len(floors)), make([]int64, len(floors))
	for i, f := range floors {
		topics[i], partitions[i], next[i] = f.Topic, f.Partition, f.Next
	}
	if _, err := db.Exec(ctx, noteSQL, consumer, topics, partitions, next); err != nil {
		return fmt.Errorf("note the floors of %s: %w", consumer, err)
	}
	return nil
}

// Floors returns what was noted of a consumer.
func Floors(ctx context.Context, db Querier, consumer string) ([]Floor, error) {
	rows, _ := db.Query(ctx, floorsSQL, consumer) // the error surfaces in the collector
	floors, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Floor])
	if err != nil {
		return nil, fmt.Errorf("read the floors of %s: %w", consumer, err)
	}
	return floors, nil
}

// Forget deletes a floor: the partition's offsets mean other messages now, because its topic was made anew or cut off.
func Forget(ctx context.Context, db Execer, consumer, topic string, partition int) error {
	if _, err := db.Exec(ctx, forgetSQL, consumer, topic, partition); err != nil {
		return fmt.Errorf("forget the floor of %s in %s/%d: %w", consumer, topic, partition, err)
	}
	return nil
}
