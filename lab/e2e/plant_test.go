package e2e_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
)

// planted is a disagreement of a kind, put straight into the databases as a bug, a lost backup or a careless hand
// would: behind the backs of the services, each of which still makes sense by itself unless the kind says otherwise.
type planted struct {
	name   string
	kinds  []string // what is found of it
	base   string   // the status of the order that it is done to; empty: none
	plant  func(g *garden, o order) (at string)
	repair string // how it ends: DONE, or that it is left to a person
	undo   func(g *garden, at string)
	beside []string // the kinds of others that it is planted together with; nil: all
}

// meets tells whether both are planted together, too.
func (p planted) meets(o planted) bool {
	takes := func(p, o planted) bool {
		return p.beside == nil || slices.ContainsFunc(o.kinds, func(kind string) bool { return slices.Contains(p.beside, kind) })
	}
	return takes(p, o) && takes(o, p)
}

// garden is the databases to plant in.
type garden struct {
	*testing.T
	order, inventory, payment *pgxpool.Pool
	product, user             string
	shelves                   [2]string // further products
}

func (g *garden) exec(db *pgxpool.Pool, sql string, args ...any) {
	g.Helper()
	if _, err := db.Exec(g.Context(), sql, args...); err != nil {
		g.Fatalf("%s: %v", sql, err)
	}
}

// oldID is an id as orders got them a while ago.
func oldID() uuid.UUID {
	id := facts.FirstOf(time.Now().Add(-40 * time.Minute))
	random := uuid.New()
	copy(id[6:], random[6:])
	id[6] = id[6]&0x0f | 0x70
	return id
}

const (
	holdSQL = `WITH changed AS (UPDATE reservations SET status = 'RESERVED', released_at = NULL WHERE order_id = $1 RETURNING items)
UPDATE products p SET available = available - i.quantity, reserved = reserved + i.quantity
FROM changed, jsonb_to_recordset(items) AS i ("productId" text, quantity bigint) WHERE p.id = i."productId"`

	dropSQL = `WITH changed AS (UPDATE reservations SET status = 'RELEASED', released_at = created_at WHERE order_id = $1 RETURNING items)
UPDATE products p SET available = available + i.quantity, reserved = reserved - i.quantity
FROM changed, jsonb_to_recordset(items) AS i ("productId" text, quantity bigint) WHERE p.id = i."productId"`

	// The charge and all of its traces were never there.
	unchargeSQL = `WITH gone AS (DELETE FROM payments WHERE order_id = $1 RETURNING id),
entry AS (DELETE FROM entries e USING gone WHERE e.transfer_id = gone.id RETURNING e.account_id, e.amount)
INSERT INTO pending (account_id, amount) SELECT account_id, -amount FROM entry`

	// The refund and all of its traces were never there.
	unrefundSQL = `WITH paid AS (UPDATE payments SET status = 'COMPLETED' WHERE order_id = $1 RETURNING order_id),
gone AS (DELETE FROM refunds r USING paid WHERE r.order_id = paid.order_id RETURNING r.id),
entry AS (DELETE FROM entries e USING gone WHERE e.transfer_id = gone.id RETURNING e.account_id, e.amount)
INSERT INTO pending (account_id, amount) SELECT account_id, -amount FROM entry`

	// A charge of a payment that is there, by the amount.
	chargeSQL = `WITH entry AS (INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
    SELECT user_id, id, 'charge', -$2::bigint, 'merchant.EUR' FROM payments WHERE order_id = $1
    UNION ALL SELECT 'merchant.EUR', id, 'charge', $2::bigint, user_id FROM payments WHERE order_id = $1 RETURNING account_id, amount)
INSERT INTO pending (account_id, amount) SELECT account_id, amount FROM entry`
)

func plants() []planted {
	done := "DONE"
	return append(booksPlants(), []planted{
		{
			name: "stock was given back", kinds: []string{"confirmed-not-reserved"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string { g.exec(g.inventory, dropSQL, o.ID); return o.ID },
		},
		{
			name: "the reservation is lost", kinds: []string{"confirmed-not-reserved"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.inventory, dropSQL, o.ID)
				g.exec(g.inventory, `DELETE FROM reservations WHERE order_id = $1`, o.ID)
				return o.ID
			},
		},
		{
			name: "the payment is lost", kinds: []string{"confirmed-not-paid"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string { g.exec(g.payment, unchargeSQL, o.ID); return o.ID },
		},
		{
			name: "stock and payment are lost", kinds: []string{"confirmed-not-paid", "confirmed-not-reserved"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.inventory, dropSQL, o.ID)
				g.exec(g.payment, unchargeSQL, o.ID)
				return o.ID
			},
		},
		{
			name: "the confirmation is lost", kinds: []string{"paid-not-confirmed"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.order, `UPDATE orders SET status = 'PENDING', settled_at = NULL WHERE id = $1`, o.ID)
				return o.ID
			},
		},
		{
			name: "the confirmation and the stock are lost", kinds: []string{"paid-not-confirmed"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.order, `UPDATE orders SET status = 'PENDING', settled_at = NULL WHERE id = $1`, o.ID)
				g.exec(g.inventory, dropSQL, o.ID)
				return o.ID
			},
		},
		{
			name: "stock is held for a cancelled order", kinds: []string{"reserved-for-cancelled"}, base: cancelled, repair: done,
			plant: func(g *garden, o order) string { g.exec(g.inventory, holdSQL, o.ID); return o.ID },
		},
		{
			name: "the refund is lost", kinds: []string{"paid-for-cancelled"}, base: cancelled, repair: done,
			plant: func(g *garden, o order) string { g.exec(g.payment, unrefundSQL, o.ID); return o.ID },
		},
		{
			name: "everything is held for a cancelled order", kinds: []string{"paid-for-cancelled", "reserved-for-cancelled"}, base: cancelled, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.inventory, holdSQL, o.ID)
				g.exec(g.payment, unrefundSQL, o.ID)
				return o.ID
			},
		},
		{
			name: "nobody settles an order", kinds: []string{"stuck-pending"}, repair: done,
			plant: func(g *garden, _ order) string {
				id := oldID()
				g.exec(g.order, `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
					VALUES ($1, $2, '[{"productId":"p","quantity":1}]', 100, 'EUR', 'PENDING', '[]', $3)`, id, g.user, facts.TimeOf(id))
				return id.String()
			},
		},
		{
			name: "nobody undoes an order", kinds: []string{"stuck-cancelling"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.order, `UPDATE orders SET status = 'CANCELLING', settled_at = NULL, reason = 'planted', history = jsonb_build_array(jsonb_build_object(
					'at', to_char(now() - interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'status', 'CANCELLING', 'event', 'order.cancel.requested')) WHERE id = $1`, o.ID)
				g.exec(g.order, `INSERT INTO cancelling (order_id, since) VALUES ($1, now() - interval '1 hour')`, o.ID)
				return o.ID
			},
		},
		{
			name: "an order is lost that holds stock", kinds: []string{"reserved-without-order"}, repair: done,
			plant: func(g *garden, _ order) string {
				id := oldID()
				g.exec(g.inventory, `INSERT INTO reservations (order_id, status, items, reason, created_at)
					VALUES ($1, 'REFUSED', '[]', 'planted', $2)`, id, facts.TimeOf(id))
				g.exec(g.inventory, `UPDATE reservations SET items = jsonb_build_array(jsonb_build_object('productId', $2::text, 'quantity', 1)), reason = '', status = 'RELEASED', released_at = created_at
					WHERE order_id = $1`, id, g.product)
				g.exec(g.inventory, holdSQL, id)
				return id.String()
			},
		},
		{
			name: "an order is lost that is paid", kinds: []string{"paid-without-order"}, repair: done,
			plant: func(g *garden, _ order) string {
				id := oldID()
				g.exec(g.payment, `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason, created_at) VALUES ($1, $2, $3, 70, 'EUR', 'COMPLETED', '', $4)`,
					id, oldID(), g.user, facts.TimeOf(id))
				g.exec(g.payment, chargeSQL, id, 70)
				return id.String()
			},
		},
		{
			name: "another amount was paid", kinds: []string{"paid-wrong-amount"}, base: confirmed, repair: "NONE",
			plant: func(g *garden, o order) string {
				g.exec(g.payment, unchargeSQL, o.ID)
				g.exec(g.payment, `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason, created_at) VALUES ($1, $2, $3, $4, 'EUR', 'COMPLETED', '', now() - interval '1 hour')`,
					o.ID, oldID(), o.UserID, o.Amount+1)
				g.exec(g.payment, chargeSQL, o.ID, o.Amount+1)
				return o.ID
			},
			undo: func(g *garden, at string) { // as an operator: pay back, and have the right amount charged
				g.exec(g.payment, unchargeSQL, at)
			},
		},
		{
			name: "another user paid", kinds: []string{"paid-wrong-user"}, base: confirmed, repair: "NONE",
			plant: func(g *garden, o order) string {
				g.exec(g.payment, unchargeSQL, o.ID)
				g.exec(g.payment, `INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason, created_at) VALUES ($1, $2, $3, $4, 'EUR', 'COMPLETED', '', now() - interval '1 hour')`,
					o.ID, oldID(), g.user, o.Amount)
				g.exec(g.payment, chargeSQL, o.ID, o.Amount)
				return o.ID
			},
			undo: func(g *garden, at string) { g.exec(g.payment, unchargeSQL, at) },
		},
		{
			name: "fewer units are reserved than were ordered", kinds: []string{"reserved-wrong-items"}, base: confirmed, repair: "NONE",
			plant: func(g *garden, o order) string {
				g.exec(g.inventory, dropSQL, o.ID)
				g.exec(g.inventory, `UPDATE reservations SET items = jsonb_set(items, '{0,quantity}', '1') WHERE order_id = $1`, o.ID)
				g.exec(g.inventory, holdSQL, o.ID)
				return o.ID
			},
			undo: func(g *garden, at string) { g.exec(g.inventory, dropSQL, at) }, // and the order's own are reserved again
		},
		{
			name: "units are reserved for nobody", kinds: []string{"stock-mismatch"}, repair: done,
			plant: func(g *garden, _ order) string {
				g.exec(g.inventory, `UPDATE products SET reserved = reserved + 1, available = available - 1 WHERE id = $1`, g.product)
				return g.product
			},
		},
		{
			name: "half of a charge is lost", kinds: []string{"balance-mismatch", "transfer-unbalanced"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				var id uuid.UUID
				if err := g.payment.QueryRow(g.Context(), `DELETE FROM entries e USING payments p WHERE p.order_id = $1 AND e.transfer_id = p.id AND e.account_id = p.user_id
					RETURNING p.id`, o.ID).Scan(&id); err != nil {
					g.Fatal(err)
				}
				return id.String()
			},
		},
		{
			name: "a balance was changed by hand", kinds: []string{"balance-mismatch"}, repair: done,
			plant: func(g *garden, _ order) string {
				g.exec(g.payment, `UPDATE accounts SET balance = balance + 7 WHERE id = $1`, g.user)
				return g.user
			},
		},
		{
			name: "a payment was called failed by hand", kinds: []string{"confirmed-not-paid", "payment-mismatch"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.payment, `UPDATE payments SET status = 'FAILED', reason = 'planted' WHERE order_id = $1`, o.ID)
				return o.ID
			},
		},
		{
			name: "the payment's row is lost, and its charge is not", kinds: []string{"charge-without-payment", "confirmed-not-paid"}, base: confirmed, repair: done,
			plant: func(g *garden, o order) string {
				g.exec(g.payment, `DELETE FROM payments WHERE order_id = $1`, o.ID)
				return o.ID
			},
		},
	}...)
}
