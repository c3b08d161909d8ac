package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// machines are the tables in which nothing of the domain is: what is in them passes, or is about how the services work.
// By the first part of the name.
var machines = map[string]string{
	"outbox":      "events on their way, or published: what they tell is held against nothing but the rows that they come from",
	"inbox":       "which messages were handled: it matters for those that come again",
	"timers":      "events that are published later, as in the outbox",
	"idempotency": "answers to requests that may come again",
	"goose":       "which migrations were made",
	"audit":       "the audit's own notes, which it holds against the rows",
	"sweeps":      "how far the sweeper of deadlines is: it looks again from an earlier place",
	"database":    "which database it is: another is what the checker's brake is for",
	"identity":    "which database it is: another is what the checker's brake is for",
}

func machinery(table string) bool {
	first, _, _ := strings.Cut(table, "_")
	return machines[first] != "" || strings.HasSuffix(table, "_migrations")
}

// pass is damage that the services cannot disagree about, with the reason: it need not be found.
type pass struct {
	table string
	what  []string                  // columns, or "delete" and "copy"; none: all
	when  func(map[string]any) bool // of the row before; nil: any
	holds string                    // SQL, of the row before as $1: the condition on what is beside it; empty: none
	why   string
}

var passes = []pass{
	{table: "orders", when: is("status", "CANCELLED"), what: []string{"delete", "copy", "id", "user_id", "items", "amount", "currency"},
		why: "neither money nor stock is held for a cancelled order: nobody has, or lacks, anything by what its row says"},
	{table: "orders", what: []string{"reason", "reason_code", "reason_parameters", "history", "created_at", "settled_at"},
		why: "for people, and held by nobody else: whether it is confirmed says status, how old it is the id; a repair that needs the history refuses without it"},
	{table: "cancelling", why: "says for how long an order is being cancelled; the order's row says that it is"},
	// Name, price, currency and version, and a copied row, are found: search shows them. It is then told what inventory
	// holds, which decides about its own.
	{table: "products", what: []string{"description", "created_at", "updated_at"}, why: "the catalogue: no other service holds it"},
	{table: "movements", what: []string{"id", "note", "created_at"}, why: "for people, and for a request that comes again: what was moved says the rest"},
	{table: "movements", when: is("kind", "count"), what: []string{"delta"}, why: "a count says what is on the shelf; by how much that was more or less is for people"},
	{table: "movements", holds: `SELECT EXISTS (SELECT FROM movements m, jsonb_populate_record(NULL::movements, $1::text::jsonb) AS was
		WHERE m.product_id = was.product_id AND m.kind = 'count' AND m.n > was.n)`, why: "what was before a later count is for people: the count says what there is"},
	{table: "reservations", when: isNot("status", "RESERVED"), why: "holds nothing"},
	{table: "reservations", what: []string{"reason", "reason_code", "reason_parameters", "created_at", "released_at"}, why: "for people: nothing is decided by it"},
	{table: "payments", when: is("status", "FAILED"), why: "nothing was charged"},
	{table: "payments", when: is("status", "REFUNDED"), what: []string{"user_id", "currency"}, why: "what was charged was paid back, to whom the ledger says"},
	{table: "payments", what: []string{"reason", "reason_code", "reason_parameters", "created_at"}, why: "for people: nothing is decided by it"},
	{table: "refunds", what: []string{"attempts", "last_error", "cause", "created_at", "done_at"}, why: "how it came about: that it was paid back, and how much, says the ledger"},
	{table: "accounts", what: []string{"frozen"}, why: "an operator's switch, of which there is no other record"},
	{table: "accounts", what: []string{"created_at"}, why: "for people"},
	{table: "entries", what: []string{"created_at"}, why: "for people: entries are in the order of their numbers"},
	{table: "transfers", when: isNot("refusal", ""), why: "nothing was moved"},
	{table: "transfers", what: []string{"reason", "created_at"}, why: "for people"},
}

func is(column, value string) func(map[string]any) bool {
	return func(row map[string]any) bool { return row[column] == value }
}

func isNot(column, value string) func(map[string]any) bool {
	return func(row map[string]any) bool { return row[column] != value }
}

// passes is why what was planted need not be found; empty: it must be.
func (p *planting) passes(t *testing.T) string {
	t.Helper()
	for _, one := range passes {
		holds := one.of(p.ground, p.before)
		if holds && one.holds != "" {
			if err := p.db.QueryRow(t.Context(), one.holds, text(p.before)).Scan(&holds); err != nil {
				t.Fatal(err)
			}
		}
		if holds {
			return one.why
		}
	}
	return ""
}

func (one pass) of(g ground, row map[string]any) bool {
	return one.table == g.table && (one.what == nil || slices.Contains(one.what, g.what())) && (one.when == nil || one.when(row))
}

// worth is what everybody has.
type worth struct {
	money  map[string]int64  // by account: the balance, and what the confirmed orders of the account's user cost; of the merchant, less that
	shelf  map[string]int64  // by product: what is available, and what confirmed orders hold of it
	orders map[string]string // what became of each
}

const (
	balancesSQL = `SELECT a.id, (a.balance + coalesce((SELECT sum(amount) FROM pending p WHERE p.account_id = a.id), 0))::bigint FROM accounts a`

	availableSQL = `SELECT id, available FROM products`

	// An order that is on its way is not one to be counted: there is none.
	spentSQL = `SELECT user_id, sum(amount)::bigint FROM orders WHERE status = 'CONFIRMED' GROUP BY 1 UNION ALL SELECT 'merchant.EUR', -sum(amount)::bigint FROM orders WHERE status = 'CONFIRMED'`

	orderedSQL = `SELECT i."productId", sum(i.quantity)::bigint FROM orders, jsonb_to_recordset(items) AS i ("productId" text, quantity bigint) WHERE status = 'CONFIRMED' GROUP BY 1`

	orderStatusSQL = `SELECT id::text, status || ' ' || user_id || ' ' || amount || ' ' || currency || ' ' || items FROM orders`
)

func (w *walk) worth(t *testing.T) worth {
	t.Helper()
	now := worth{read[int64](t, w.garden.payment, balancesSQL), read[int64](t, w.garden.inventory, availableSQL), read[string](t, w.garden.order, orderStatusSQL)}
	for user, spent := range read[int64](t, w.garden.order, spentSQL) {
		now.money[user] += spent
	}
	for product, units := range read[int64](t, w.garden.order, orderedSQL) {
		now.shelf[product] += units
	}
	return now
}

func read[T any](t *testing.T, db *pgxpool.Pool, sql string) map[string]T {
	t.Helper()
	all := map[string]T{}
	var name string
	var value T
	rows, _ := db.Query(t.Context(), sql)
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { all[name] = value; return nil }); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// harm is who has another worth than before, and which order is another. What becomes of an order whose own row was
// damaged may be decided by that, as long as its user has the money or the goods.
func (w *walk) harm(t *testing.T, p *planting) string {
	t.Helper()
	before, now := w.last, w.worth(t)
	w.last = now
	var all []string
	for account, had := range before.money {
		if has := now.money[account]; has != had {
			all = append(all, fmt.Sprintf("%s has a worth of %d, had %d", account, has, had))
		}
	}
	for product, had := range before.shelf {
		if has := now.shelf[product]; has != had {
			all = append(all, fmt.Sprintf("of %s there are %d, were %d", product, has, had))
		}
	}
	for order, was := range before.orders {
		if is := now.orders[order]; is != was && !(p.table == "orders" && p.before["id"] == order) {
			all = append(all, fmt.Sprintf("order %s was %q and is %q", order, was, is))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
