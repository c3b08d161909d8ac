package inventory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) {
	time.Local = time.FixedZone("somewhere", 5*60*60) // the API's times are UTC wherever the service runs
	pgtest.Main(m)
}

// bundle is a database with inventory's schema, and what tests do with it.
type bundle struct {
	*testing.T
	db *pgxpool.Pool
}

// price is what a unit of each product costs, unless a test says otherwise.
const price = 100

// setup gives a test its own database, with products of so many units.
func setup(t *testing.T, stock ...Line) bundle {
	t.Helper()
	migrate := sagatest.Migrate(pg.Migration{Name: "inventory", FS: migrations.For("inventory")})
	b := bundle{t, pgtest.New(t, "inventory", migrate)}
	for _, s := range stock {
		_, created, err := putProduct(t.Context(), b.db, s.ProductID, Draft{Name: s.ProductID, Price: price, Currency: "EUR", Stock: s.Quantity})
		if err != nil || !created {
			t.Fatalf("put %s: created %t, %v", s.ProductID, created, err)
		}
	}
	return b
}

// putProduct creates a product, or makes it what the draft says, whatever it was: by a count, if need be.
func putProduct(ctx context.Context, db *pgxpool.Pool, id string, d Draft) (p Product, created bool, err error) {
	p, v, err := put(ctx, db, id, d, false, web.Condition{Named: true, Match: web.ETags{Any: true}})
	if err == nil && v == conflict { // there is none
		p, v, err = put(ctx, db, id, d, true, web.Condition{})
	}
	if err == nil && p.Stock != d.Stock {
		if _, _, _, err = move(ctx, db, Movement{ID: clock.NewID(), ProductID: id, Kind: Count, Units: d.Stock}); err == nil {
			p, _, err = findProduct(ctx, db, id)
		}
	}
	return p, v == create, err
}

// restockProduct puts units in. ok is false where that cannot be.
func restockProduct(ctx context.Context, db *pgxpool.Pool, id string, units int64) (p Product, ok bool, err error) {
	_, _, v, err := move(ctx, db, Movement{ID: clock.NewID(), ProductID: id, Kind: Receipt, Units: units})
	if err == nil {
		p, _, err = findProduct(ctx, db, id)
	}
	return p, v == moved, err
}

// deliver hands records to the service as one poll, and returns what it says then, as told shows it.
func (b bundle) deliver(records ...broker.Record) []string {
	b.Helper()
	outs := b.ofOrders(sagatest.Deliver(b.T, b.db, Choreography(), records...))
	said := make([]string, len(outs))
	for i, r := range outs {
		said[i] = told(b.T, r)
	}
	return said
}

// ofOrders leaves out what is told of products, which turned_test.go looks at.
func (bundle) ofOrders(records []broker.Record) []broker.Record {
	return slices.DeleteFunc(records, func(r broker.Record) bool { return r.Topic == event.ProductUpdated.Name() })
}

// ids is deliver that shows the events' ids as well.
func (b bundle) ids(records ...broker.Record) []string {
	b.Helper()
	var out []string
	for _, r := range b.ofOrders(sagatest.Deliver(b.T, b.db, Choreography(), records...)) {
		out = append(out, r.Header("ce_id")+" "+told(b.T, r))
	}
	return out
}

// told shows an event in one line.
func told(t *testing.T, r broker.Record) string {
	t.Helper()
	switch r.Topic {
	case event.InventoryReserved.Name():
		e := sagatest.Decode(t, event.InventoryReserved, r)
		return fmt.Sprintf("%s: reserved for %s, %d %s", name(e.OrderID), e.UserID, e.Amount, e.Currency)
	case event.InventoryReservationFailed.Name():
		e := sagatest.Decode(t, event.InventoryReservationFailed, r)
		return fmt.Sprintf("%s: %s", name(e.OrderID), e.Error)
	case event.InventoryReleased.Name():
		return name(sagatest.Decode(t, event.InventoryReleased, r).OrderID) + ": released"
	default:
		return fmt.Sprintf("%s: %s", r.Topic, r.Header("dlq-reason"))
	}
}

// order is the id of the n-th order.
func order(n int) uuid.UUID {
	return uuid.MustParse(fmt.Sprintf("01980d2e-0000-7000-8000-%012d", n))
}

func name(id uuid.UUID) string { return "order " + trimZeros(id.String()[24:]) }

func trimZeros(s string) string {
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	return s
}

// created is a new message, each time, that tells of the n-th order.
func created(t *testing.T, n int, lines ...Line) broker.Record {
	t.Helper()
	e := event.OrderCreatedV1{OrderID: order(n), UserID: "u-1", Currency: "EUR"}
	for _, l := range lines {
		e.Items = append(e.Items, event.Item(l))
		e.Amount += price * l.Quantity
	}
	return sagatest.Record(t, saga.New(t.Context(), event.OrderCreated, order(n).String(), e))
}

// unpaid is a new message, each time, that tells of the failed payment of the n-th order.
func unpaid(t *testing.T, n int) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.PaymentFailed, order(n).String(), event.PaymentFailedV1{OrderID: order(n), Error: "declined"}))
}

// unneeded is a new message, each time, that calls for the release of the n-th order for one of the other reasons.
func unneeded(t *testing.T, n, reason int) broker.Record {
	t.Helper()
	id, key := order(n), order(n).String()
	return sagatest.Record(t, []saga.Out{
		saga.New(t.Context(), event.PaymentRefunded, key, event.PaymentRefundedV1{OrderID: id, PaymentID: uuid.Max, Amount: 4200}),
		saga.New(t.Context(), event.PaymentRefundFailed, key, event.PaymentRefundFailedV1{OrderID: id, Error: "frozen"}),
		saga.New(t.Context(), event.OrderCancelled, key, event.OrderCancelledV1{OrderID: id, Reason: "mistake"}),
	}[reason%reasons])
}

const reasons = 3

// stock lists every product as "id: available+reserved".
func (b bundle) stock() []string {
	b.Helper()
	products, err := listProducts(b.Context(), b.db, "", 1000)
	if err != nil {
		b.Fatal(err)
	}
	out := make([]string, len(products))
	for i, p := range products {
		out[i] = fmt.Sprintf("%s: %d+%d", p.ID, p.Available, p.Reserved)
	}
	return out
}

// reservations lists every reservation, without its times, by order.
func (b bundle) reservations() []Reservation {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT order_id, status, items, reason, reason_code, reason_parameters FROM reservations`)
	rs, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Reservation])
	if err != nil {
		b.Fatal(err)
	}
	slices.SortFunc(rs, func(x, y Reservation) int { return cmp.Compare(x.OrderID.String(), y.OrderID.String()) })
	return rs
}

// consistent checks what must always hold: the units that products say are reserved are the ones that reservations
// hold, and the units that movements make are all there. Fewer than none are available only where a count said so,
// which no test does that asks this.
func (b bundle) consistent() {
	b.Helper()
	held := map[string]int64{}
	for _, r := range b.reservations() {
		if r.Status == Reserved {
			for _, l := range r.Items {
				held[l.ProductID] += l.Quantity
			}
		}
	}
	products, err := listProducts(b.Context(), b.db, "", 1000)
	if err != nil {
		b.Fatal(err)
	}
	for _, p := range products {
		if p.Reserved != held[p.ID] || p.Available+p.Reserved != p.Stock || p.Available < 0 {
			b.Errorf("%s: %d available and %d reserved of %d put in, but reservations hold %d", p.ID, p.Available, p.Reserved, p.Stock, held[p.ID])
		}
	}
	if found, err := facts.Audit(b.Context(), b.db, rules); err != nil || len(found) > 0 {
		b.Errorf("the audit finds %v, %v", found, err)
	}
}
