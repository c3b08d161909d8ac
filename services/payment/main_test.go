package payment

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/pgtest"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/sagatest"
)

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("somewhere", 5*60*60) // the API's times are UTC wherever the service runs
	pgtest.Main(m)
}

// bundle is a database with payment's schema, and what tests do with it.
type bundle struct {
	*testing.T
	db   *pgxpool.Pool
	rule Rule
}

func setup(t *testing.T) bundle {
	t.Helper()
	migrate := sagatest.Migrate(pg.Migration{Name: "payment", FS: migrations.For("payment")})
	return bundle{t, pgtest.New(t, "payment", migrate), Rule{Above: 1000, Users: []string{"mallory"}}}
}

// deliver hands records to the service as one poll, and returns what it says then.
func (b bundle) deliver(records ...broker.Record) []broker.Record {
	b.Helper()
	return sagatest.Deliver(b.T, b.db, Choreography(b.rule), records...)
}

// told shows an event in one line, with the payment's id if it has one.
func told(t *testing.T, r broker.Record) string {
	t.Helper()
	switch r.Topic {
	case event.PaymentCompleted.Name():
		e := sagatest.Decode(t, event.PaymentCompleted, r)
		return fmt.Sprintf("%s: paid %d with %s", e.OrderID, e.Amount, e.PaymentID)
	case event.PaymentFailed.Name():
		e := sagatest.Decode(t, event.PaymentFailed, r)
		return fmt.Sprintf("%s: %s", e.OrderID, e.Error)
	default:
		return fmt.Sprintf("%s: %s", r.Topic, r.Header("dlq-reason"))
	}
}

func (b bundle) told(records ...broker.Record) []string {
	b.Helper()
	lines := make([]string, len(records))
	for i, r := range records {
		lines[i] = told(b.T, r)
	}
	return lines
}

// order is the id of the n-th order.
func order(n int) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("01980d2e-0000-7000-8000-%012d", n))
}

// reserved is a new message, each time, that the n-th order's items are reserved.
func reserved(t *testing.T, n int, user string, amount int64) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.InventoryReserved, order(n).String(),
		event.InventoryReservedV1{OrderID: order(n), UserID: user, Amount: amount, Currency: "EUR"}))
}

// payments reads every payment, by order.
func (b bundle) payments() map[uuid.UUID]Payment {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT order_id, id, user_id, amount, currency, status, reason FROM payments`)
	ps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Payment])
	if err != nil {
		b.Fatal(err)
	}
	out := make(map[uuid.UUID]Payment, len(ps))
	for _, p := range ps {
		out[p.OrderID] = p
	}
	return out
}
