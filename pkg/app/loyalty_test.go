// A whole service in one screen: a contract, a schema, a reaction, and what runs it.
package app_test

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// What the loyalty service says.
type pointsGrantedV1 struct {
	OrderID string `json:"orderId"`
	Points  int    `json:"points"`
}

var pointsGranted = saga.NewTopic[pointsGrantedV1]("points.granted")

//go:embed testdata/loyalty/*.sql
var files embed.FS

// grant runs in one transaction with the inbox and the outbox: the points are granted and told of exactly once, whatever
// Kafka delivers twice.
func grant(ctx context.Context, tx pgx.Tx, m saga.Msg[event.OrderConfirmedV1]) ([]saga.Out, error) {
	_, err := tx.Exec(ctx, `INSERT INTO points (order_id, points) VALUES ($1, 10) ON CONFLICT DO NOTHING`, m.Key)
	if err != nil {
		return nil, fmt.Errorf("grant points for order %s: %w", m.Key, err)
	}
	return saga.Emit(m, pointsGranted, pointsGrantedV1{OrderID: m.Key, Points: 10}), nil
}

// Run is the whole service; its main is app.Main(Run).
func Run(ctx context.Context, getenv func(string) string) error {
	return app.Run(ctx, app.NewSettings(getenv), app.Service{
		Service: saga.Service{
			Name:   "loyalty",
			Routes: []saga.Route{saga.On(event.OrderConfirmed, grant, pointsGranted)},
		},
		Addr:       "127.0.0.1:8090",
		Migrations: pg.Dir(files, "testdata/loyalty"),
	})
}
