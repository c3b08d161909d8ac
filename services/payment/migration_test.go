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
	"github.com/converge-dev/converge/pkg/pgtest"
	"github.com/converge-dev/converge/pkg/sagatest"
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
