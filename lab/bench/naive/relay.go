package naive

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// pollEvery is how often the outbox is looked at; most outboxes are polled less often.
const pollEvery = 100 * time.Millisecond

const (
	readOutboxSQL   = `SELECT id, topic, key, value, headers FROM outbox ORDER BY id LIMIT 1000`
	deleteOutboxSQL = `DELETE FROM outbox WHERE id = ANY($1)`
)

// relay publishes what is in the outbox. It waits for the next poll only when it has found nothing: what came while it
// published goes at once.
func (s *service) relay(ctx context.Context) error {
	w := &kafka.Writer{
		Addr: kafka.TCP(s.broker), Balancer: kafka.Murmur2Balancer{}, RequiredAcks: kafka.RequireAll,
		BatchSize: 1000, BatchTimeout: 5 * time.Millisecond,
	}
	defer w.Close() //nolint:errcheck // WriteMessages has waited for everything
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		n, err := s.publish(ctx, w)
		if err != nil {
			return fmt.Errorf("relay of %s: %w", s.name, err)
		}
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *service) publish(ctx context.Context, w *kafka.Writer) (int, error) {
	rows, err := s.db.Query(ctx, readOutboxSQL)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	var ids []int64
	var msgs []kafka.Message
	for rows.Next() {
		var id int64
		var m kafka.Message
		var headers []byte
		if err := rows.Scan(&id, &m.Topic, &m.Key, &m.Value, &headers); err != nil {
			return 0, err
		}
		m.Headers = []kafka.Header{{Key: "id", Value: headers}}
		ids, msgs = append(ids, id), append(msgs, m)
	}
	if err := rows.Err(); err != nil || len(msgs) == 0 {
		return 0, err
	}
	if err := w.WriteMessages(ctx, msgs...); err != nil {
		return 0, err
	}
	_, err = s.db.Exec(ctx, deleteOutboxSQL, ids)
	return len(msgs), err
}
