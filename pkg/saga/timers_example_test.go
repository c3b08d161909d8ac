package saga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

type parcel struct {
	OrderID string `json:"orderId"`
}

var (
	paid    = saga.NewTopic[parcel]("order.paid")
	shipped = saga.NewTopic[parcel]("order.shipped")
	overdue = saga.NewTopic[parcel]("shipment.late")
)

// An order that is not shipped within a day is late. The timer is set in the transaction that handles the payment, and
// cancelled in the one that handles the shipment: whatever crashes in between, the event comes once, or not at all.
func ExampleAfter() {
	shipping := saga.Service{Name: "shipping", Routes: []saga.Route{
		saga.On(paid, func(_ context.Context, _ pgx.Tx, m saga.Msg[parcel]) ([]saga.Out, error) {
			return saga.After(24*time.Hour, saga.Emit(m, overdue, m.Data)...), nil
		}, overdue),
		saga.On(shipped, func(_ context.Context, _ pgx.Tx, m saga.Msg[parcel]) ([]saga.Out, error) {
			return saga.Cancel(overdue, m.Key), nil
		}, overdue),
	}}

	t, done := pgtest.Example()
	defer done()
	db := pgtest.New(t, "example", sagatest.Migrate())
	for _, order := range []string{"o1", "o2"} {
		sagatest.Deliver(t, db, shipping, sagatest.Record(t, saga.New(t.Context(), paid, order, parcel{order})))
	}
	sagatest.Deliver(t, db, shipping, sagatest.Record(t, saga.New(t.Context(), shipped, "o1", parcel{"o1"})))
	fmt.Println("after a minute:", len(sagatest.Elapse(t, db, time.Minute)))
	for _, e := range sagatest.Elapse(t, db, 24*time.Hour) { // in a service time passes by itself
		fmt.Printf("after a day: %s %s\n", e.Topic, e.Key)
	}
	// Output:
	// after a minute: 0
	// after a day: shipment.late o2
}
