package idempotency_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// A charge that is asked for twice, as by a client that lost the first answer.
func ExampleKeys_Do() {
	t, done := pgtest.Example()
	defer done()
	db, ctx := setup(t), t.Context()

	keys := idempotency.Keys{}
	charge := func(_ context.Context, _ pgx.Tx) (idempotency.Result, error) {
		fmt.Println("charging")
		return idempotency.Result{Status: 201, Body: []byte(`{"paymentId":"p1"}`)}, nil
	}
	for range 2 {
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			key := idempotency.Key{Scope: "u1", Key: "k1", Fingerprint: idempotency.Fingerprint([]byte(`{"amount":700}`))}
			result, err := keys.Do(ctx, tx, key, charge)
			if err != nil {
				return err // rolls back, unlike a refusal, which is in result.Err
			}
			fmt.Printf("%d %s\n", result.Status, result.Body)
			return nil
		})
		if err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// charging
	// 201 {"paymentId":"p1"}
	// 201 {"paymentId":"p1"}
}

func ExampleParseKey() {
	key, err := idempotency.ParseKey(`"8e03978e-40d5-43dd-bc93-6894a57f9324"`)
	fmt.Println(key, err)
	_, err = idempotency.ParseKey("my key")
	fmt.Println(err)
	// Output:
	// 8e03978e-40d5-43dd-bc93-6894a57f9324 <nil>
	// expected a key in double quotes, or one without blanks, quotes and commas, all of ASCII; see character 3
}
