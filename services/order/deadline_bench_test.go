package order

import (
	"maps"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// BenchmarkDeadline is all that order's database does for an order that is placed and confirmed, as it is and with a
// timer for its deadline, which is set with the order and cancelled when it settles. See docs/adr/0020-timers.md.
func BenchmarkDeadline(b *testing.B) {
	const batch = 100
	draft := Draft{UserID: "u-1", Items: []Item{{"p-1", 2}, {"p-2", 1}}, Amount: 4200, Currency: "EUR"}
	for name, timer := range map[string]bool{"sweeper": false, "timer": true} {
		b.Run(name, func(b *testing.B) {
			db := database(b)
			expired := saga.NewTopic[event.OrderCancelRequestedV1]("order.expired")
			b.ResetTimer()
			for range b.N {
				orders, ids := make([]*Order, batch), make([]uuid.UUID, batch)
				var outs []saga.Out
				for i := range orders {
					p := newPosting(b.Context(), draft, "", clock.Now())
					o := p.order
					orders[i], ids[i] = o, o.ID
					outs = append(outs, p.begins)
					if timer {
						late := event.OrderCancelRequestedV1{OrderID: o.ID, Reason: "expired", Code: event.CodeExpired}
						outs = append(outs, saga.After(15*time.Minute, saga.New(b.Context(), expired, o.ID.String(), late))...)
					}
				}
				var placing pgx.Batch
				queueInsert(&placing, orders)
				if _, err := saga.Queue(&placing, nil, "order", outs...); err != nil {
					b.Fatal(err)
				}
				if err := db.SendBatch(b.Context(), &placing).Close(); err != nil {
					b.Fatal(err)
				}
				err := pg.InTx(b.Context(), db, func(tx pgx.Tx) error {
					locked, err := lock(b.Context(), tx, ids)
					if err != nil {
						return err
					}
					var outs []saga.Out
					messages := make([]uuid.UUID, 0, batch)
					for _, o := range locked {
						now := clock.Now()
						o.Progress = o.noting(Entry{At: now, Status: o.Status, Event: event.PaymentCompleted.Name(), Detail: "payment of 4200"})
						o.Status, o.SettledAt, o.changed = Confirmed, &now, true
						outs = append(outs, saga.New(b.Context(), event.OrderConfirmed, o.id.String(), event.OrderConfirmedV1{OrderID: o.id}))
						messages = append(messages, clock.NewID())
						if timer {
							outs = append(outs, saga.Cancel(expired, o.id.String())...)
						}
					}
					if err := save(b.Context(), tx, maps.Values(locked)); err != nil {
						return err
					}
					var end pgx.Batch
					inbox.Record(&end, "order", messages)
					if _, err := saga.Queue(&end, nil, "order", outs...); err != nil {
						return err
					}
					return pg.Defer(b.Context(), tx, &end)
				})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := db.Exec(b.Context(), `DELETE FROM outbox`); err != nil { // as the relay does
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*batch), "µs/order")
		})
	}
}
