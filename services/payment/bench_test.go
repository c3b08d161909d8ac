package payment

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/pgtest"
	"github.com/converge-dev/converge/pkg/saga"
)

// Charges of 64 users at once, one order in each transaction: to one merchant, to a merchant each, and, for comparison, to one
// merchant whose account is locked and changed by every charge.
func BenchmarkCharge(b *testing.B) {
	const clients = 64
	for _, mode := range []struct {
		name      string
		merchants int
		locked    bool
	}{{"one merchant", 1, false}, {"64 merchants", clients, false}, {"one merchant, locked", 1, true}} {
		b.Run(mode.name, func(b *testing.B) {
			db := pgtest.New(b, "payment", schema())
			pool, err := pg.Open(b.Context(), db.Config().ConnString(), pg.MaxConns(clients))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(pool.Close)
			charge := func(client int) error {
				cfg := Config{Merchant: fmt.Sprintf("merchant-%d", client%mode.merchants), Opening: plenty}
				c := newCashier(cfg)
				id := clock.NewID()
				m := saga.Msg[event.InventoryReservedV1]{Data: event.InventoryReservedV1{
					OrderID: id, UserID: fmt.Sprintf("user-%d", client), Amount: 1, Currency: "EUR",
				}}
				return pg.InTx(b.Context(), pool, func(tx pgx.Tx) error {
					if _, err := c.chargeAll(b.Context(), tx, []saga.Msg[event.InventoryReservedV1]{m}); err != nil {
						return err
					}
					if mode.locked { // with the writes, on the way to the commit: the shortest time it can be
						return lockMerchant(b.Context(), tx, c.bank.merchantOf("EUR"))
					}
					return nil
				})
			}
			for client := range clients { // opens the accounts
				if err := charge(client); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			failed := make(chan error, clients)
			for client := range clients {
				go func() {
					for left.Add(-1) >= 0 {
						if err := charge(client); err != nil {
							failed <- err
							return
						}
					}
					failed <- nil
				}()
			}
			for range clients {
				if err := <-failed; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "charges/s")
		})
	}
}

func lockMerchant(ctx context.Context, tx pgx.Tx, id string) error {
	var batch pgx.Batch
	batch.Queue(`UPDATE accounts SET balance = balance + 1 WHERE id = $1`, id)
	return pg.Defer(ctx, tx, &batch)
}
