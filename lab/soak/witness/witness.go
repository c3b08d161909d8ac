// Package witness is a service that counts confirmed orders, and says each count in an event. Its handler is not
// idempotent, unlike those of the real services, which know their orders: only the inbox and the one transaction make
// it count each order once. And the events of one key are many, so they show whether the outbox keeps their order.
package witness

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// Name is the service's.
const Name = "witness"

// CountedV1 says that an order was counted, as the N-th of its bucket.
type CountedV1 struct {
	OrderID uuid.UUID `json:"orderId"`
	N       int64     `json:"n"`
	Padding string    `json:"padding,omitempty"`
}

// Orders that nobody placed. Faults say that they were confirmed.
var (
	// Cursed cannot be counted: its handler returns an error, always.
	Cursed = uuid.MustParse("0192f000-0000-7000-8000-00000000000c")
	// Swollen is told of in an event that is larger than its topic takes.
	Swollen = uuid.MustParse("0192f000-0000-7000-8000-00000000000d")
)

const swollenBy = 3 << 19 // bytes: more than topics take, and less than dead letters may be

// Counted is keyed by bucket.
var Counted = saga.NewTopic[CountedV1]("witness.counted")

//go:embed migrations/*.sql
var migrations embed.FS

// Choreography is what it reacts to and emits.
func Choreography() saga.Service {
	return saga.Service{Name: Name, Routes: []saga.Route{saga.OnBatch(event.OrderConfirmed, count, Counted)}}
}

// Run runs the service until ctx ends.
func Run(ctx context.Context, getenv func(string) string) error {
	return app.Run(ctx, app.NewSettings(getenv), app.Service{
		Service: Choreography(), Addr: "127.0.0.1:0", Migrations: pg.Dir(migrations, "migrations"),
	})
}

// BucketOf is the key under which an order is counted.
func BucketOf(order uuid.UUID) string { return order.String()[35:] }

const (
	lockSQL = `SELECT bucket, n FROM tally WHERE bucket = ANY($1) ORDER BY bucket FOR UPDATE`
	addSQL  = `UPDATE tally AS t SET n = t.n + b.more FROM (
    SELECT bucket, count(*) AS more FROM unnest($1::text[]) AS bucket GROUP BY bucket
) AS b WHERE t.bucket = b.bucket`
	noteSQL = `INSERT INTO counted (order_id, n) SELECT * FROM unnest($1::uuid[], $2::bigint[])`
)

func count(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[event.OrderConfirmedV1]) ([]saga.Out, error) {
	buckets := make([]string, len(msgs))
	orders := make([]uuid.UUID, len(msgs))
	for i, m := range msgs {
		if m.Data.OrderID == Cursed {
			return nil, errors.New("this order cannot be counted")
		}
		buckets[i], orders[i] = BucketOf(m.Data.OrderID), m.Data.OrderID
	}
	at := map[string]int64{}
	rows, _ := tx.Query(ctx, lockSQL, buckets) // the error surfaces in the collector
	var bucket string
	var n int64
	if _, err := pgx.ForEachRow(rows, []any{&bucket, &n}, func() error { at[bucket] = n; return nil }); err != nil {
		return nil, fmt.Errorf("lock the tally: %w", err)
	}
	numbers := make([]int64, len(msgs))
	var outs []saga.Out
	for i, m := range msgs {
		at[buckets[i]]++
		numbers[i] = at[buckets[i]]
		counted := CountedV1{OrderID: orders[i], N: numbers[i]}
		if orders[i] == Swollen {
			counted.Padding = strings.Repeat("x", swollenBy)
		}
		for _, out := range saga.Emit(m, Counted, counted) {
			outs = append(outs, out.Keyed(buckets[i]))
		}
	}
	if _, err := tx.Exec(ctx, addSQL, buckets); err != nil {
		return nil, fmt.Errorf("count %d orders: %w", len(msgs), err)
	}
	if _, err := tx.Exec(ctx, noteSQL, orders, numbers); err != nil {
		return nil, fmt.Errorf("note %d orders: %w", len(msgs), err)
	}
	return outs, nil
}
