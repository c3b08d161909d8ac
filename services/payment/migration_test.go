package payment

import (
	"context"
	"fmt"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Orders that were paid before there were accounts are the merchant's money, and can be paid back.
func TestPaymentsFromBeforeTheLedger(t *testing.T) {
	t.Parallel()
	first, err := fs.ReadFile(migrations.For("payment"), "00001_payment.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.New(t, "payment before the ledger", func(ctx context.Context, db *pgxpool.Pool) error {
		before := sagatest.Migrate(idempotency.Migration(), pg.Migration{Name: "payment", FS: fstest.MapFS{"00001_payment.sql": {Data: first}}})
		if err := before(ctx, db); err != nil {
			return err
		}
		for n, what := range []string{"'ada', 700, 'EUR', 'COMPLETED', ''", "'ada', 300, 'USD', 'COMPLETED', ''", "'bob', 50, 'EUR', 'FAILED', 'declined'", "'bob', 1, 'EUR', 'COMPLETED', ''"} {
			sql := fmt.Sprintf(`INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason) VALUES ('%s', gen_random_uuid(), %s)`, order(n), what)
			if _, err := db.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return schema()(ctx, db)
	})
	b := bundle{t, db, Config{}}
	want(t, []int64{701, 300, -701, -300}, []int64{b.balance("merchant.EUR"), b.balance("merchant.USD"), b.balance("external.EUR"), b.balance("external.USD")})

	b.deliver(cancelled(t, 0))
	want(t, []int64{1, 700}, []int64{b.balance("merchant.EUR"), b.balance("ada")})
	want(t, Refunded, b.record(0).Status)
	b.audit()
}

// What was charged and paid back before entries named their orders names them since, so a row that is lost later is
// restored.
func TestEntriesFromBeforeTheyNamedOrders(t *testing.T) {
	t.Parallel()
	before := fstest.MapFS{}
	for _, name := range []string{"00001_payment.sql", "00002_ledger.sql", "00003_corrections.sql"} {
		data, err := fs.ReadFile(migrations.For("payment"), name)
		if err != nil {
			t.Fatal(err)
		}
		before[name] = &fstest.MapFile{Data: data}
	}
	db := pgtest.New(t, "payment before entries named orders", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := sagatest.Migrate(idempotency.Migration(), pg.Migration{Name: "payment", FS: before})(ctx, db); err != nil {
			return err
		}
		for n, status := range []string{"COMPLETED", "REFUNDED"} {
			if _, err := db.Exec(ctx, fmt.Sprintf(`INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason) VALUES ('%[1]s', '%[1]s', 'u-%[2]d', 100, 'EUR', '%[3]s', '')`, order(n), n, status)); err != nil {
				return err
			}
			for _, sql := range []string{
				`INSERT INTO accounts (id, currency) VALUES ('merchant.EUR', 'EUR'), ('u-%[2]d', 'EUR') ON CONFLICT DO NOTHING`,
				`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty) VALUES ('u-%[2]d', '%[1]s', 'charge', -100, 'merchant.EUR'), ('merchant.EUR', '%[1]s', 'charge', 100, 'u-%[2]d')`,
			} {
				if _, err := db.Exec(ctx, fmt.Sprintf(sql, order(n), n)); err != nil {
					return err
				}
			}
		}
		for _, sql := range []string{
			`INSERT INTO refunds (order_id, id, state, attempts, cause, created_at, done_at) VALUES ('%[1]s', '%[2]s', 'DONE', 1, '{}', now(), now())`,
			`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty) VALUES ('merchant.EUR', '%[2]s', 'refund', -100, 'u-1'), ('u-1', '%[2]s', 'refund', 100, 'merchant.EUR')`,
		} {
			if _, err := db.Exec(ctx, fmt.Sprintf(sql, order(1), order(9))); err != nil {
				return err
			}
		}
		return schema()(ctx, db)
	})
	b := bundle{t, db, Config{}}
	was := b.payments()
	for n := range was {
		b.exec(`DELETE FROM refunds WHERE order_id = $1`, n)
	}
	b.exec(`DELETE FROM payments`)
	b.deliver(reserved(t, 0, "u-0", 100), reserved(t, 1, "u-1", 100))
	want(t, was, b.payments())
}
