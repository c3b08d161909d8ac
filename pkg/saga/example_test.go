package saga_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

type orderPlaced struct {
	OrderID string `json:"orderId"`
	Total   int64  `json:"total"`
}

type pointsGranted struct {
	Points int64 `json:"points"`
}

var (
	placed  = saga.NewTopic[orderPlaced]("order.placed")
	granted = saga.NewTopic[pointsGranted]("points.granted")
)

// A service is a table of reactions. A handler works in the transaction it is given, and returns what it has to say.
func Example() {
	loyalty := saga.Service{Name: "loyalty", Routes: []saga.Route{
		saga.On(placed, func(ctx context.Context, tx pgx.Tx, m saga.Msg[orderPlaced]) ([]saga.Out, error) {
			if m.Data.Total < 100 {
				return nil, nil // a refusal may also be an event of its own
			}
			return saga.Emit(m, granted, pointsGranted{m.Data.Total / 100}), nil
		}, granted),
	}}

	t, done := pgtest.Example()
	defer done()
	db := pgtest.New(t, "example", sagatest.Migrate())
	order := sagatest.Record(t, saga.New(t.Context(), placed, "o1", orderPlaced{"o1", 1250}))
	for _, e := range sagatest.Deliver(t, db, loyalty, order, order) { // twice, as Kafka may
		fmt.Printf("%s %s: %s\n", e.Topic, e.Key, e.Value)
	}
	fmt.Print(saga.Mermaid(loyalty))
	// Output:
	// points.granted o1: {"points":12}
	// flowchart LR
	//     loyalty[loyalty]
	//     loyalty -- points.granted --> points_granted_sink(( ))
	//     order_placed_source(( )) -- order.placed --> loyalty
}
