package idempotency_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
)

// A charge that is asked for twice, as by a client that lost the first answer.
func ExampleKeys_Do() {
	db, ctx, done := exampleDatabase()
	defer done()

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

// exampleDatabase is setup for an example, which has no testing.TB.
func exampleDatabase() (pg.Beginner, context.Context, func()) {
	var tb exampleTB
	return setup(&tb), tb.Context(), tb.done
}

type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper()                  {}
func (*exampleTB) Context() context.Context { return context.Background() }
func (tb *exampleTB) Cleanup(fn func())     { tb.cleanups = append(tb.cleanups, fn) }
func (*exampleTB) Error(args ...any)        { fmt.Println(args...) }
func (*exampleTB) Errorf(format string, args ...any) {
	fmt.Printf(format+"\n", args...)
}

func (*exampleTB) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}

func (tb *exampleTB) done() {
	for _, fn := range tb.cleanups {
		defer fn()
	}
}
