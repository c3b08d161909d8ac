package simulate_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/services/inventory"
	"github.com/converge-dev/converge/services/order"
	"github.com/converge-dev/converge/services/payment"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// The users' accounts open with little, and there is hardly anything in stock: orders compete.
const (
	opening = 900
	stock   = `
INSERT INTO products (id, name, price, currency, stock, available, reserved) VALUES
	('cup', 'Cup', 100, 'EUR', 6, 6, 0), ('grinder', 'Grinder', 450, 'EUR', 1, 1, 0), ('sticker', 'Sticker', 0, 'EUR', 2, 2, 0)`
)

var prices = map[string]int64{"cup": 100, "grinder": 450, "sticker": 0, "unknown": 1}

// cashier is what payment decides by: who pays more than it says in one order is declined.
var cashier = payment.Config{Opening: opening, Rule: payment.Rule{Above: 1000}}

// saboteur breaks databases: SQL by service, which a test runs behind the migrations.
type saboteur map[string]string

// services are the three on fresh databases.
func (broken saboteur) services(t testing.TB) []sagatest.Simulated {
	database := func(name, rows string, blocks ...pg.Migration) *pgxpool.Pool {
		migrate := sagatest.Migrate(append(blocks, pg.Migration{Name: name, FS: migrations.For(name)})...)
		rows += broken[name]
		return pgtest.New(t, name+rows, func(ctx context.Context, pool *pgxpool.Pool) error {
			if err := migrate(ctx, pool); err != nil {
				return err
			}
			_, err := pool.Exec(ctx, rows)
			return err
		})
	}
	orders := database("order", "", idempotency.Migration())
	payments := database("payment", "", idempotency.Migration())
	deadline := order.NewManual(orders)
	chores := payment.NewManual(cashier, payments)
	return []sagatest.Simulated{
		{Service: order.Choreography(), DB: orders, Background: []func(context.Context, time.Time) error{
			func(ctx context.Context, now time.Time) error { return deadline.Expire(ctx, now, 15*time.Minute) },
		}},
		{Service: inventory.Choreography(), DB: database("inventory", stock+";")},
		{Service: payment.Choreography(cashier), DB: payments, Background: []func(context.Context, time.Time) error{chores.Retry, chores.Fold}},
	}
}

// placed is an order of a history.
type placed struct {
	order.Draft
	id uuid.UUID
}

// requests draws what users do: they place orders that can be fulfilled, or cost more than they have, or want what is
// not there, and cancel some. Now and then the merchant cannot pay back, until it can again.
func requests(r *rand.Rand) []sagatest.Input {
	var inputs []sagatest.Input
	var frozen bool
	for i := range 1 + r.IntN(4) {
		o := &placed{Draft: draft(r)}
		inputs = append(inputs, sagatest.Input{
			Name: fmt.Sprintf("%s places order %d, %s for %d", o.UserID, i+1, items(o.Draft), o.Amount), About: o,
			Do: func(ctx context.Context, w *sagatest.World) (err error) {
				o.id, err = order.NewManual(w.DB("order")).Place(ctx, o.Draft)
				return err
			},
		})
		if r.IntN(3) == 0 {
			inputs = append(inputs, sagatest.Input{
				Name: fmt.Sprintf("%s cancels order %d", o.UserID, i+1),
				Do: func(ctx context.Context, w *sagatest.World) error {
					return order.NewManual(w.DB("order")).Cancel(ctx, o.id, o.UserID)
				},
			})
		}
		if r.IntN(8) == 0 {
			frozen = !frozen
			inputs = append(inputs, freeze(frozen))
		}
	}
	if frozen {
		inputs = append(inputs, freeze(false))
	}
	return inputs
}

func draft(r *rand.Rand) order.Draft {
	d := order.Draft{UserID: []string{"anna", "bert"}[r.IntN(2)], Currency: "EUR"}
	products := []string{"cup", "cup", "grinder", "sticker", "unknown"}
	first := products[r.IntN(len(products))]
	d.Items = []order.Item{{ProductID: first, Quantity: 1 + r.Int64N(4)}}
	if second := products[r.IntN(len(products))]; second != first && r.IntN(2) == 0 {
		d.Items = append(d.Items, order.Item{ProductID: second, Quantity: 1})
	}
	for _, item := range d.Items {
		d.Amount += prices[item.ProductID] * item.Quantity
	}
	if r.IntN(20) == 0 {
		d.Amount++ // not what it costs
	}
	return d
}

func items(d order.Draft) string {
	var lines []string
	for _, item := range d.Items {
		lines = append(lines, fmt.Sprintf("%d %s", item.Quantity, item.ProductID))
	}
	return strings.Join(lines, " and ")
}

// freeze freezes the merchant, or thaws it. A merchant without an account yet cannot be frozen.
func freeze(frozen bool) sagatest.Input {
	name := "the merchant's account is frozen"
	if !frozen {
		name = "the merchant's account is thawed"
	}
	return sagatest.Input{Name: name, Do: func(ctx context.Context, w *sagatest.World) error {
		return payment.NewManual(cashier, w.DB("payment")).Freeze(ctx, "merchant.EUR", frozen)
	}}
}

func TestOrdersConverge(t *testing.T) {
	t.Parallel()
	sagatest.Converges(t, saboteur{}.services, requests, agree)
}
