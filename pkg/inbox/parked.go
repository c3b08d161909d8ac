package inbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Place is a partition.
type Place struct {
	Topic     string
	Partition int
}

// Parked is a message that waits in the database for an earlier one of its lane: the messages with one key, which are
// handled in the order in which they were parked.
type Parked struct {
	Place
	Offset     int64
	Lane       string
	Key, Value []byte
	Headers    []Header
	Time       time.Time
	Attempts   int  // of its handler, failed
	Last       bool // the next attempt is its last
}

// Header is a message's, bit for bit.
type Header struct{ Name, Value []byte }

// parkSQL keeps the row of a message that was parked before, in its place: it is delivered again when its offset was
// not committed.
const parkSQL = `INSERT INTO inbox_parked AS p (consumer, topic, partition, "offset", lane, key, value, headers, time, attempts, last)
SELECT $1, topic, partition, "offset", lane, key, value, headers, time, attempts, last
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bytea[], $8::bytea[], $9::timestamptz[], $10::int[], $11::bool[])
    WITH ORDINALITY AS m (topic, partition, "offset", lane, key, value, headers, time, attempts, last, n)
ORDER BY n
ON CONFLICT (consumer, topic, partition, "offset", time)
    DO UPDATE SET attempts = greatest(p.attempts, excluded.attempts), last = p.last OR excluded.last`

const unparkSQL = `DELETE FROM inbox_parked p
USING unnest($2::text[], $3::int[], $4::bigint[], $5::timestamptz[]) AS m (topic, partition, "offset", time)
WHERE p.consumer = $1 AND p.topic = m.topic AND p.partition = m.partition AND p."offset" = m."offset" AND p.time = m.time`

const parkedLanesSQL = `SELECT lane, count(*) FROM inbox_parked
JOIN unnest($2::text[], $3::int[]) AS m (topic, partition) USING (topic, partition)
WHERE consumer = $1 GROUP BY lane`

// nextParkedSQL bounds the bytes that it reads: beyond 1 MiB no more rows follow.
const nextParkedSQL = `SELECT topic, partition, "offset", key, value, headers, time, attempts, last FROM (
    SELECT *, sum(octet_length(value)) OVER (ORDER BY id) - octet_length(value) AS before FROM (
        SELECT * FROM inbox_parked JOIN unnest($3::text[], $4::int[]) AS m (topic, partition) USING (topic, partition)
        WHERE consumer = $1 AND lane = $2 ORDER BY id LIMIT $5
    ) AS first
) AS sized WHERE coalesce(before, 0) < 1048576 ORDER BY id`

// Park queues the statement that keeps messages, in this order, for a consumer.
func Park(b *pgx.Batch, consumer string, msgs []Parked) error {
	n := len(msgs)
	lanes, keys, values, headers := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	attempts, last := make([]int, n), make([]bool, n)
	for i, m := range msgs {
		var err error
		if headers[i], err = json.Marshal(m.Headers); err != nil {
			return fmt.Errorf("park a message: %w", err)
		}
		lanes[i], keys[i], values[i] = []byte(m.Lane), m.Key, m.Value
		attempts[i], last[i] = m.Attempts, m.Last
	}
	topics, partitions, offsets, times := places(msgs)
	b.Queue(parkSQL, consumer, topics, partitions, offsets, lanes, keys, values, headers, times, attempts, last)
	return nil
}

// Unpark queues the statement that deletes parked messages, by their places: for the transaction that handles them.
func Unpark(b *pgx.Batch, consumer string, msgs []Parked) {
	if len(msgs) > 0 {
		topics, partitions, offsets, times := places(msgs)
		b.Queue(unparkSQL, consumer, topics, partitions, offsets, times)
	}
}

func places(msgs []Parked) (topics []string, partitions []int, offsets []int64, times []time.Time) {
	for _, m := range msgs {
		topics, partitions = append(topics, m.Topic), append(partitions, m.Partition)
		offsets, times = append(offsets, m.Offset), append(times, m.Time)
	}
	return topics, partitions, offsets, times
}

// ParkedLanes counts a consumer's parked messages of some partitions, by lane.
func ParkedLanes(ctx context.Context, db Querier, consumer string, of []Place) (map[string]int, error) {
	topics, partitions := split(of)
	rows, _ := db.Query(ctx, parkedLanesSQL, consumer, topics, partitions) // the error surfaces in the collector
	lanes := map[string]int{}
	var lane []byte
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&lane, &n}, func() error { lanes[string(lane)] = n; return nil }); err != nil {
		return nil, fmt.Errorf("look for parked messages of %s: %w", consumer, err)
	}
	return lanes, nil
}

// NextParked returns the first messages of a lane that are parked, of some partitions, in order, at most limit.
func NextParked(ctx context.Context, db Querier, consumer, lane string, of []Place, limit int) ([]Parked, error) {
	topics, partitions := split(of)
	rows, _ := db.Query(ctx, nextParkedSQL, consumer, []byte(lane), topics, partitions, limit) // the error surfaces in the collector
	msgs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Parked, error) {
		m := Parked{Lane: lane}
		var headers []byte
		if err := row.Scan(&m.Topic, &m.Partition, &m.Offset, &m.Key, &m.Value, &headers, &m.Time, &m.Attempts, &m.Last); err != nil {
			return m, err
		}
		return m, json.Unmarshal(headers, &m.Headers)
	})
	if err != nil {
		return nil, fmt.Errorf("read parked messages of %s: %w", consumer, err)
	}
	return msgs, nil
}

func split(of []Place) (topics []string, partitions []int) {
	for _, p := range of {
		topics, partitions = append(topics, p.Topic), append(partitions, p.Partition)
	}
	return topics, partitions
}
