package simulate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// agree is the invariant: every order is settled, the three services hold the same of each, and neither a unit nor a
// cent was made or lost.
func agree(ctx context.Context, w *sagatest.World) error {
	var orders []*placed
	for _, in := range w.Done() {
		if o, ok := in.About.(*placed); ok {
			orders = append(orders, o)
		}
	}
	states, err := read(ctx, w)
	if err != nil {
		return err
	}
	errs := []error{booksOf(ctx, w)}
	if len(states) != len(orders) {
		errs = append(errs, fmt.Errorf("%d orders are known, %d were placed", len(states), len(orders)))
	}
	told := []map[string]int{tell(w.Published(event.OrderConfirmed.Name())), tell(w.Published(event.OrderCancelled.Name()))}
	for _, o := range orders {
		is := states[o.id]
		if err := is.judge(o, told[0][o.id.String()], told[1][o.id.String()]); err != nil {
			errs = append(errs, fmt.Errorf("order %s for %d: %w: %+v", items(o.Draft), o.Amount, err, *is))
		}
	}
	return errors.Join(errs...)
}

// state is what the three hold of an order; empty: they do not know it.
type state struct {
	Order, Stock, Payment string
	Items                 []line
	Paid                  int64
	Refund                string
}

type line struct {
	ProductID string `json:"productId"`
	Quantity  int64  `json:"quantity"`
}

func (s *state) judge(o *placed, confirmed, cancelled int) error {
	if s == nil {
		return errors.New("nobody knows it")
	}
	switch {
	case s.Order == "CONFIRMED" && s.Stock == "RESERVED" && s.Payment == "COMPLETED":
		if s.Paid != o.Amount {
			return errors.New("it is paid with another amount")
		}
		if !slices.Equal(s.Items, wanted(o)) {
			return errors.New("other items are reserved for it")
		}
		if confirmed != 1 || cancelled != 0 {
			return fmt.Errorf("it was told %d times to be confirmed and %d times to be cancelled", confirmed, cancelled)
		}
	case s.Order == "CANCELLED" && s.Stock != "RESERVED" && s.Payment != "COMPLETED":
		if confirmed > 1 || cancelled != 1 {
			return fmt.Errorf("it was told %d times to be confirmed and %d times to be cancelled", confirmed, cancelled)
		}
	default:
		return errors.New("it is not settled, or not the same everywhere")
	}
	if s.Refund == "WAITING" {
		return errors.New("its refund still waits")
	}
	return nil
}

func wanted(o *placed) []line {
	var lines []line
	for _, item := range o.Items {
		lines = append(lines, line(item))
	}
	slices.SortFunc(lines, func(a, b line) int {
		if a.ProductID < b.ProductID {
			return -1
		}
		return 1
	})
	return lines
}

// tell counts the different events about each order.
func tell(records []broker.Record) map[string]int {
	ids, counts := map[string]bool{}, map[string]int{}
	for _, r := range records {
		if id := r.Header("ce_id"); !ids[id] {
			ids[id] = true
			counts[string(r.Key)]++
		}
	}
	return counts
}

func read(ctx context.Context, w *sagatest.World) (map[uuid.UUID]*state, error) {
	states := map[uuid.UUID]*state{}
	of := func(id uuid.UUID) *state {
		if states[id] == nil {
			states[id] = &state{}
		}
		return states[id]
	}
	var id uuid.UUID
	var status, refund string
	var lines []line
	var amount int64
	err := each(ctx, w.DB("order"), `SELECT id, status FROM orders`, []any{&id, &status}, func() { of(id).Order = status })
	if err != nil {
		return nil, err
	}
	err = each(ctx, w.DB("inventory"), `SELECT order_id, status, items FROM reservations`, []any{&id, &status, &lines}, func() {
		of(id).Stock, of(id).Items = status, slices.Clone(lines)
	})
	if err != nil {
		return nil, err
	}
	err = each(ctx, w.DB("payment"), `SELECT p.order_id, p.status, p.amount, coalesce(r.state, '') FROM payments p LEFT JOIN refunds r USING (order_id)`,
		[]any{&id, &status, &amount, &refund}, func() { of(id).Payment, of(id).Paid, of(id).Refund = status, amount, refund })
	return states, err
}

func each(ctx context.Context, db *pgxpool.Pool, sql string, into []any, fn func()) error {
	rows, _ := db.Query(ctx, sql) // the error surfaces in the reader
	_, err := pgx.ForEachRow(rows, into, func() error { fn(); return nil })
	return err
}

// books are what is wrong with a service's books, each by itself: a query returns nothing when all is well.
var books = map[string]string{
	"order": atRest,
	"inventory": atRest + `
UNION ALL SELECT 'units were made or lost: ' || id || ': ' || available || ' + ' || reserved FROM products
	WHERE available < 0 OR stock <> CASE id WHEN 'cup' THEN 6 WHEN 'grinder' THEN 1 ELSE 2 END OR available + reserved <> stock
UNION ALL SELECT 'reserved is something else than what orders hold: ' || p.id || ': ' || p.reserved || ' of ' || coalesce(sum(i.quantity), 0)
	FROM products p LEFT JOIN (reservations r CROSS JOIN LATERAL jsonb_to_recordset(r.items) AS i ("productId" text, quantity bigint))
	ON i."productId" = p.id AND r.status = 'RESERVED' GROUP BY p.id HAVING p.reserved <> coalesce(sum(i.quantity), 0)`,
	"payment": atRest + `
UNION ALL SELECT 'money was made or lost: ' || s FROM
	(SELECT (SELECT coalesce(sum(balance), 0) FROM accounts) + (SELECT coalesce(sum(amount), 0) FROM pending) AS s) AS accounts WHERE s <> 0
UNION ALL SELECT 'an account is not what its entries say: ' || a.id || ': ' || a.balance FROM accounts a WHERE
	a.balance + (SELECT coalesce(sum(amount), 0) FROM pending WHERE account_id = a.id) <>
	(SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = a.id)
UNION ALL SELECT 'a transfer is not whole: ' || transfer_id FROM entries GROUP BY transfer_id HAVING sum(amount) <> 0 OR count(*) <> 2
UNION ALL SELECT 'an account is below zero: ' || id FROM accounts WHERE balance < 0 AND NOT overdraft
UNION ALL SELECT 'the merchant has ' || m || ' and is paid ' || p FROM
	(SELECT (SELECT coalesce(sum(amount), 0) FROM entries WHERE account_id = 'merchant.EUR') AS m,
	(SELECT coalesce(sum(amount), 0) FROM payments WHERE status = 'COMPLETED') AS p) AS sides WHERE m <> p`,
}

const atRest = `SELECT 'something waits still: ' || n
	FROM (SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM inbox_parked) AS n) AS waiting WHERE n > 0`

func booksOf(ctx context.Context, w *sagatest.World) error {
	var errs []error
	for service, sql := range books {
		rows, _ := w.DB(service).Query(ctx, sql) // the error surfaces in the collector
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, what := range wrong {
			err = errors.Join(err, errors.New(what))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", service, err))
		}
	}
	return errors.Join(errs...)
}
