package outbox_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// What is published is what was committed.
func ExampleRelay() {
	t, done := pgtest.Example()
	defer done()
	db := pgtest.New(t, "outbox", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, outbox.Migration()) })

	published := make(chan string)
	kafka := producer(func(records []broker.Record) []error { // in a service: a *broker.Client
		for _, r := range records {
			published <- fmt.Sprintf("%s %s: %s", r.Topic, r.Key, r.Value)
		}
		return make([]error, len(records))
	})
	relay := outbox.NewRelay(db, kafka, outbox.Config{})
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- relay.Run(ctx) }()

	for _, order := range []string{"1", "2", "3"} {
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			event := outbox.Message{Topic: "order.created", Key: []byte(order), Value: []byte(`{"orderId":"` + order + `"}`)}
			if err := outbox.Insert(ctx, tx, []outbox.Message{event}); err != nil {
				return err
			}
			if order == "2" {
				return errors.New("changed my mind")
			}
			return nil
		})
		if err == nil {
			relay.Wake()
		}
	}
	fmt.Println(<-published)
	fmt.Println(<-published)
	stop()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// order.created 1: {"orderId":"1"}
	// order.created 3: {"orderId":"3"}
	// stopped: <nil>
}
