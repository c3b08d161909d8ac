package payment_test

import (
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/services/payment"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// hotRowSQL puts what a merchant is paid straight into the balance, as its row's lock allows: one charge after the
// other, from the write to the end of the commit, which is the shortest time that it can be.
const hotRowSQL = `CREATE FUNCTION straight() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	UPDATE accounts SET balance = balance + NEW.amount WHERE id = NEW.account_id; RETURN NULL; END$$;
CREATE TRIGGER straight BEFORE INSERT ON pending FOR EACH ROW EXECUTE FUNCTION straight()`

// opening is what every user's account holds at the beginning, so that no order is refused for lack of it.
const opening = 1_000_000_000_000

func userID(n int) string { return "user-" + strconv.Itoa(n) }

// bankOf is payment's database on a durable server.
func bankOf(b *testing.B) *pgxpool.Pool {
	b.Helper()
	db := pgtest.Durable(b)
	if err := pg.Migrate(b.Context(), db, inbox.Migration(), outbox.Migration(), idempotency.Migration(), pg.Migration{Name: "payment", FS: migrations.For("payment")}); err != nil {
		b.Fatal(err)
	}
	return db
}

// mustAddUp fails a benchmark that has made or lost money.
func mustAddUp(b *testing.B, db *pgxpool.Pool) {
	b.Helper()
	for _, sql := range []string{
		`SELECT 'all entries sum to ' || sum(amount) FROM entries HAVING sum(amount) <> 0`,
		`SELECT 'account ' || a.id || ' holds ' || a.balance || ' and pending ' || p.amount || ', its entries sum to ' || e.amount
FROM accounts a,
    LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM pending WHERE account_id = a.id) AS p,
    LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM entries WHERE account_id = a.id) AS e
WHERE a.balance + p.amount <> e.amount OR (a.balance < 0 AND NOT a.overdraft) ORDER BY a.id`,
		`SELECT 'merchants hold ' || held.amount || ', COMPLETED payments are ' || paid.amount
FROM (SELECT coalesce(sum(amount), 0) AS amount FROM entries WHERE account_id LIKE 'merchant%') AS held,
    (SELECT coalesce(sum(amount), 0) AS amount FROM payments WHERE status = 'COMPLETED') AS paid
WHERE held.amount <> paid.amount`,
	} {
		rows, _ := db.Query(b.Context(), sql) // the error surfaces in the collector
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			b.Fatal(err)
		}
		for _, line := range wrong {
			b.Error(line)
		}
	}
}

// BenchmarkMerchant is charges of 64 users at once, one order in each transaction: to one merchant, to a merchant each,
// and to one merchant whose balance every charge changes.
func BenchmarkMerchant(b *testing.B) {
	const clients = 64
	for _, mode := range []struct {
		name      string
		merchants int
		schema    string
	}{{"one", 1, ""}, {"64", clients, ""}, {"one, a hot row", 1, hotRowSQL}} {
		b.Run(mode.name, func(b *testing.B) {
			db := bankOf(b)
			if _, err := db.Exec(b.Context(), mode.schema); err != nil {
				b.Fatal(err)
			}
			pool, err := pg.Open(b.Context(), db.Config().ConnString(), pg.MaxConns(clients))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(pool.Close)
			charge := func(client int) error {
				svc := payment.Choreography(payment.Config{Merchant: fmt.Sprintf("merchant-%d", client%mode.merchants), Opening: opening})
				id := clock.NewID()
				r, err := saga.Encode("bench", saga.New(b.Context(), event.InventoryReserved, id.String(), event.InventoryReservedV1{
					OrderID: id, UserID: userID(client), Amount: 1, Currency: "EUR",
				}))
				if err != nil {
					return err
				}
				return saga.Deliver(b.Context(), svc, saga.Config{DB: pool}, r)
			}
			run := func(n int64) {
				var begun atomic.Int64
				var g errgroup.Group
				for client := range clients {
					g.Go(func() error {
						for begun.Add(1) <= n {
							if err := charge(client); err != nil {
								return err
							}
						}
						return nil
					})
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
			}
			run(4 * clients) // opens the accounts
			b.ResetTimer()
			run(int64(b.N))
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "charges/s")
			mustAddUp(b, pool)
		})
	}
}

// BenchmarkRefund is paying back orders that were charged for, so many in each poll, as when many are cancelled at
// once.
func BenchmarkRefund(b *testing.B) {
	for _, poll := range []int{1, 10, 100, 500} {
		b.Run(fmt.Sprint(poll), func(b *testing.B) {
			db := bankOf(b)
			svc := payment.Choreography(payment.Config{Opening: opening})
			var charges, refunds []broker.Record
			add := func(to *[]broker.Record, out saga.Out) {
				r, err := saga.Encode("bench", out)
				if err != nil {
					b.Fatal(err)
				}
				*to = append(*to, r)
			}
			for n := range b.N {
				id := clock.NewID()
				add(&charges, saga.New(b.Context(), event.InventoryReserved, id.String(), event.InventoryReservedV1{OrderID: id, UserID: userID(n), Amount: 1, Currency: "EUR"}))
				add(&refunds, saga.New(b.Context(), event.OrderCancelRequested, id.String(), event.OrderCancelRequestedV1{OrderID: id, Reason: "expired"}))
			}
			deliver := func(records []broker.Record, poll int) {
				for some := range slices.Chunk(records, poll) {
					if err := saga.Deliver(b.Context(), svc, saga.Config{DB: db}, some...); err != nil {
						b.Fatal(err)
					}
				}
			}
			deliver(charges, 500)
			b.ResetTimer()
			deliver(refunds, poll)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "refunds/s")
			mustAddUp(b, db)
		})
	}
}
