package sqlfloor

import (
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

func idsOf(orders []Order) []uuid.UUID {
	ids := make([]uuid.UUID, len(orders))
	for i := range orders {
		ids[i] = orders[i].ID
	}
	return ids
}

// times repeats a value.
func times[T any](v T, n int) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = v
	}
	return out
}

// fresh makes new ids.
func fresh(n int) []uuid.UUID {
	ids := make([]uuid.UUID, n)
	for i := range ids {
		ids[i] = uuid.Must(uuid.NewV7())
	}
	return ids
}

const insertOrdersSQL = `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::bigint[], $5::text[], $6::text[], $7::jsonb[], $8::timestamptz[])`

func place(b *pgx.Batch, orders []Order) {
	n, now := len(orders), time.Now().UTC()
	users, items, amounts := make([]string, n), make([]string, n), make([]int64, n)
	for i, o := range orders {
		users[i], items[i], amounts[i] = o.UserID, o.Items, o.Amount
	}
	b.Queue(insertOrdersSQL, idsOf(orders), users, items, amounts, times("EUR", n), times("PENDING", n),
		times("["+entry("PENDING", "order.created", now)+"]", n), times(now, n))
}

const (
	recordSQL = `INSERT INTO inbox (consumer, id) SELECT $1, id FROM unnest($2::uuid[]) AS id ORDER BY id`

	lockReservationsSQL = `SELECT order_id, status, items, reason FROM reservations
WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE`

	lockProductsSQL = `SELECT id, available FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	// MoveUnitsSQL moves units of products from available to reserved.
	MoveUnitsSQL = `UPDATE products p SET available = available - units, reserved = reserved + units, updated_at = now()
FROM unnest($1::text[], $2::bigint[]) AS moved (id, units) WHERE p.id = moved.id`

	addReservationsSQL = `INSERT INTO reservations (order_id, status, items, reason)
SELECT order_id, 'RESERVED', items, '' FROM unnest($1::uuid[], $2::jsonb[]) AS added (order_id, items) ORDER BY order_id`
)

func reserve(b *pgx.Batch, orders []Order) {
	moved := map[string]int64{}
	items := make([]string, len(orders))
	for i, o := range orders {
		items[i] = o.Items
		for j, p := range o.Products {
			moved[p] += o.Units[j]
		}
	}
	products, units := make([]string, 0, len(moved)), make([]int64, 0, len(moved))
	for p, n := range moved {
		products, units = append(products, p), append(units, n)
	}
	ids := idsOf(orders)
	b.Queue(recordSQL, "inventory", fresh(len(orders)))
	b.Queue(lockReservationsSQL, ids)
	b.Queue(lockProductsSQL, products)
	b.Queue(MoveUnitsSQL, products, units)
	b.Queue(addReservationsSQL, ids, items)
}

const (
	openAccountsSQL = `INSERT INTO accounts (id, currency, overdraft)
SELECT id, 'EUR', false FROM unnest($1::text[]) AS opened (id) ORDER BY id COLLATE "C" ON CONFLICT DO NOTHING RETURNING id`

	lockAccountsSQL = `SELECT id, currency, balance, overdraft, frozen FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	takePendingSQL = `DELETE FROM pending WHERE account_id = ANY($1) RETURNING account_id, amount`

	readAccountsSQL = `SELECT id, currency, balance, overdraft, frozen FROM accounts WHERE id = ANY($1)`

	readPaymentsSQL = `SELECT order_id, id, user_id, amount, currency, status, reason FROM payments WHERE order_id = ANY($1)`

	// MoveBalancesSQL changes balances of accounts.
	MoveBalancesSQL = `UPDATE accounts a SET balance = balance + amount
FROM unnest($1::text[], $2::bigint[]) AS moved (id, amount) WHERE a.id = moved.id`

	addPendingSQL = `INSERT INTO pending (account_id, amount) VALUES ($1, $2)`

	addEntriesSQL = `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
SELECT account_id, transfer_id, 'charge', amount, counterparty
FROM unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[]) AS e (account_id, transfer_id, amount, counterparty)`

	addPaymentsSQL = `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason)
SELECT order_id, id, user_id, amount, 'EUR', 'COMPLETED', ''
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) AS attempt (order_id, id, user_id, amount)
ORDER BY order_id`

	merchant = "merchant.EUR"
)

func charge(b *pgx.Batch, orders []Order) {
	n := len(orders)
	users, amounts, ids := make([]string, n), make([]int64, n), fresh(n)
	sums := map[string]int64{}
	var total int64
	accounts, others := make([]string, 0, 2*n), make([]string, 0, 2*n)
	transfers, entries := make([]uuid.UUID, 0, 2*n), make([]int64, 0, 2*n)
	for i, o := range orders {
		users[i], amounts[i] = o.UserID, o.Amount
		sums[o.UserID] -= o.Amount
		total += o.Amount
		accounts, others = append(accounts, o.UserID, merchant), append(others, merchant, o.UserID)
		transfers, entries = append(transfers, ids[i], ids[i]), append(entries, -o.Amount, o.Amount)
	}
	payers, moved := make([]string, 0, len(sums)), make([]int64, 0, len(sums))
	for user, amount := range sums {
		payers, moved = append(payers, user), append(moved, amount)
	}
	b.Queue(recordSQL, "payment", fresh(n))
	b.Queue(openAccountsSQL, append(slices.Clip(payers), merchant))
	b.Queue(lockAccountsSQL, payers)
	b.Queue(takePendingSQL, payers)
	b.Queue(readAccountsSQL, []string{merchant})
	b.Queue(readPaymentsSQL, idsOf(orders))
	b.Queue(MoveBalancesSQL, payers, moved)
	b.Queue(addPendingSQL, merchant, total)
	b.Queue(addEntriesSQL, accounts, transfers, entries, others)
	b.Queue(addPaymentsSQL, idsOf(orders), ids, users, amounts)
}

const (
	lockOrdersSQL = `SELECT id, created_at, status, reason, history, settled_at
FROM orders WHERE id = ANY($1) ORDER BY id FOR UPDATE`

	saveOrdersSQL = `UPDATE orders AS o
SET status = n.status, history = n.history, settled_at = n.settled_at
FROM unnest($1::uuid[], $2::text[], $3::jsonb[], $4::timestamptz[]) AS n (id, status, history, settled_at)
WHERE o.id = n.id`
)

func confirm(b *pgx.Batch, orders []Order) {
	n, now := len(orders), time.Now().UTC()
	ids := idsOf(orders)
	b.Queue(recordSQL, "order", fresh(n))
	b.Queue(lockOrdersSQL, ids)
	b.Queue(saveOrdersSQL, ids, times("CONFIRMED", n), times(History(now, now), n), times(now, n))
}

// History is that of an order that was confirmed, in JSON.
func History(placed, confirmed time.Time) string {
	return "[" + entry("PENDING", "order.created", placed) + "," + entry("CONFIRMED", "payment.completed", confirmed) + "]"
}

func entry(status, event string, at time.Time) string {
	return `{"at":"` + at.Format(time.RFC3339Nano) + `","event":"` + event + `","status":"` + status + `"}`
}

const insertOutboxSQL = `INSERT INTO outbox (topic, key, value, headers)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[])`

// queueOutbox writes events of the size that the services' have.
func queueOutbox(b *pgx.Batch, topic string, orders []Order) {
	n := len(orders)
	keys, values, headers := make([][]byte, n), make([][]byte, n), make([]string, n)
	id := uuid.Must(uuid.NewV7()).String()
	at := time.Now().UTC().Format(time.RFC3339Nano)
	for i, o := range orders {
		key := o.ID.String()
		keys[i] = []byte(key)
		values[i] = []byte(`{"orderId":"` + key + `","userId":"` + o.UserID + `","amount":` + strconv.FormatInt(o.Amount, 10) + `,"currency":"EUR","items":` + o.Items + `}`)
		headers[i] = `[["ce_specversion","1.0"],["ce_id","` + id + `"],["ce_type","` + topic + `"],["ce_source","/floor"],["ce_subject","` + key +
			`"],["ce_time","` + at + `"],["content-type","application/json"],["traceparent","00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"],` +
			`["ce_correlationid","` + id + `"],["ce_causationid","` + id + `"]]`
	}
	b.Queue(insertOutboxSQL, times(topic, n), keys, values, headers)
}
