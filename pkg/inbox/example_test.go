package inbox_test

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// A message that is delivered twice has its effect once.
func ExampleRecord() {
	t, done := pgtest.Example()
	defer done()
	ctx := context.Background()
	db := pgtest.New(t, "inbox", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, inbox.Migration()) })

	message := uuid.MustParse("01a20a08-7e33-7b2f-a4e0-a9164d8e8df3")
	for range 2 {
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			fmt.Println("charging") // with tx: both or neither
			var b pgx.Batch
			inbox.Record(&b, "payment", []uuid.UUID{message})
			return pg.Defer(ctx, tx, &b) // goes with the commit
		})
		if inbox.Duplicate(err) {
			fmt.Println("seen before, and undone")
		} else if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// charging
	// charging
	// seen before, and undone
}
