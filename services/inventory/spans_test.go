package inventory

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// spanned is a stock that is audited by spans of ten reservations, with 23 orders that hold a tea each, and every third
// one also a cup, audited until all that is settled is closed.
func spanned(t *testing.T) (bundle, *auditor) {
	t.Helper()
	b := setup(t, Line{"tea", 100}, Line{"cup", 50})
	a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 10}
	b.order(1, 23)
	b.move(b.api(), "tea", movement(1, "receipt", 5), 201)
	b.closes(a)
	return b, a
}

// order has the orders from one on to another reserved.
func (b bundle) order(from, to int) {
	b.Helper()
	var records []broker.Record
	for n := from; n <= to; n++ {
		lines := []Line{{"tea", 1}}
		if n%3 == 0 {
			lines = append(lines, Line{"cup", 1})
		}
		records = append(records, created(b.T, n, lines...))
	}
	b.deliver(records...)
}

// closes audits until all full spans are closed: what one audit has seen is settled when the transactions of its time
// have ended.
func (b bundle) closes(a *auditor) {
	b.Helper()
	var full, closed int64
	if err := b.db.QueryRow(b.Context(), `SELECT last_value / $1 FROM reservations_n_seq`, a.width).Scan(&full); err != nil {
		b.Fatal(err)
	}
	for closed = -1; closed < full && b.Context().Err() == nil; {
		b.finds(a, false)
		if err := b.db.QueryRow(b.Context(), `SELECT closed FROM audit_horizon WHERE summed = closed`).Scan(&closed); err != nil {
			b.Fatal(err)
		}
	}
}

// finds wants an audit to find this: kinds and subjects.
func (b bundle) finds(a *auditor, full bool, want ...string) {
	b.Helper()
	found, err := a.audit(b.Context(), full)
	if err != nil {
		b.Fatal(err)
	}
	var is []string
	for _, one := range found {
		is = append(is, one.Kind+" "+one.Subject)
	}
	slices.Sort(is)
	if diff := cmp.Diff(want, is); diff != "" {
		b.Errorf("found (-want +got):\n%s\n%v", diff, found)
	}
}

// past changes rows past the triggers, as who writes to the disk does.
func (b bundle) past(sql string) {
	b.Helper()
	err := pgx.BeginFunc(b.Context(), b.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(b.Context(), `SET LOCAL session_replication_role = replica`); err != nil {
			return err
		}
		tag, err := tx.Exec(b.Context(), sql)
		if err == nil && tag.RowsAffected() == 0 {
			err = fmt.Errorf("%s: no row", sql)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

// What is wrong is found at once by what is kept of closed spans, as by reading all: with products, and with
// reservations and movements that are new, or old and changed by hand.
func TestAuditBySpans(t *testing.T) {
	t.Parallel()
	const first, last = "'01980d2e-0000-7000-8000-000000000003'", "'01980d2e-0000-7000-8000-000000000099'"
	tea, cup := "stock-mismatch tea", "stock-mismatch cup"
	for name, tc := range map[string]struct {
		plant string
		want  []string
	}{
		"units that nobody holds":           {`UPDATE products SET reserved = reserved + 1, available = available - 1 WHERE id = 'tea'`, []string{tea}},
		"a stock that nobody moved":         {`UPDATE products SET stock = stock + 1, available = available + 1 WHERE id = 'tea'`, []string{tea}},
		"a product is lost":                 {`DELETE FROM products WHERE id = 'tea'`, []string{tea}},
		"a new reservation is lost":         {`DELETE FROM reservations WHERE order_id = ` + last, []string{cup, tea}},
		"a new reservation is another":      {`UPDATE reservations SET items = '[{"productId": "tea", "quantity": 2}]' WHERE order_id = ` + last, []string{cup, tea}},
		"a new reservation is released":     {`UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = ` + last, []string{cup, tea}},
		"an old reservation is lost":        {`DELETE FROM reservations WHERE order_id = ` + first, []string{cup, tea}},
		"an old reservation is released":    {`UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = ` + first, []string{cup, tea}},
		"an old reservation is of no lines": {`UPDATE reservations SET items = '{}' WHERE order_id = ` + first, []string{cup, tea}},
		"an old reservation of nothing known": {
			`UPDATE reservations SET items = '[{"productId": "pot", "quantity": 1}, {"productId": "tea", "quantity": 1}]' WHERE order_id = ` + first, []string{cup, "stock-mismatch pot"},
		},
		"a reservation is copied": {
			`INSERT INTO reservations (order_id, status, items, reason) SELECT '01980d2e-0000-7000-8000-0000000000aa', status, items, reason FROM reservations WHERE order_id = ` + first,
			[]string{cup, tea},
		},
		"the last movement is lost": {`DELETE FROM movements WHERE product_id = 'tea' AND n = 3`, []string{tea}},
		"all movements are lost":    {`DELETE FROM movements WHERE product_id = 'tea'`, []string{tea}},
		"a new movement is another": {`UPDATE movements SET units = 3, delta = 3 WHERE product_id = 'tea' AND n = 3`, []string{tea}},
		"the kept movement is another": {
			`WITH m AS (UPDATE movements SET stock = stock + 4 WHERE product_id = 'tea' AND n > 1) UPDATE products SET stock = stock + 4, available = available + 4 WHERE id = 'tea'`, []string{tea},
		},
		"movements of no product": {
			`INSERT INTO movements SELECT 'pot', 1, uuidv7(), kind, units, delta, stock, note FROM movements WHERE product_id = 'tea' AND n = 1`, []string{"stock-mismatch pot"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, a := spanned(t)
			b.order(99, 99)
			b.deliver(unpaid(t, 6), unneeded(t, 9, 2)) // old orders, now
			b.finds(a, false)
			b.move(b.api(), "tea", movement(2, "receipt", 2), 201)
			b.exec(tc.plant)
			b.finds(a, false, tc.want...)
			b.finds(a, true, tc.want...)
			b.order(30, 60)
			for range 5 { // what is wrong stays so when its span is closed
				b.finds(a, false, tc.want...)
			}
		})
	}
}

// What a saga or a command does to an old reservation is no damage, however often; and what it holds is counted.
func TestOldReservationsChange(t *testing.T) {
	t.Parallel()
	b, a := spanned(t)
	b.deliver(unpaid(t, 3), unpaid(t, 4), unneeded(t, 77, 1))
	status, body := request(t, b.commands(), http.MethodPost, "/reservations/"+order(3).String()+"/reserve", `{"seen": "RELEASED", "items": [{"productId": "cup", "quantity": 4}]}`)
	if status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	b.want([]string{"cup: 40+10", "tea: 84+21"}, b.stock())
	b.finds(a, false)
	b.order(30, 60)
	b.closes(a)
	b.deliver(unpaid(t, 3))
	b.exec(`UPDATE audit_spans SET suspect = true`) // all are read again
	b.finds(a, false)
	b.finds(a, true)
	b.exec(`DELETE FROM audit_held`)
	b.exec(`UPDATE audit_horizon SET summed = 0`) // and summed up anew
	b.finds(a, false)
	b.consistent()
}

// A closed reservation that was changed past the triggers, or what is noted of its changes, is found when it is its
// span's turn; and with what it breaks, which a recount does not hide.
func TestClosedReservationsAreReadAgain(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]string{
		"released":         `UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = '01980d2e-0000-7000-8000-000000000004'`,
		"lost":             `DELETE FROM reservations WHERE order_id = '01980d2e-0000-7000-8000-000000000004'`,
		"another order's":  `UPDATE reservations SET order_id = uuidv7() WHERE order_id = '01980d2e-0000-7000-8000-000000000004'`,
		"a change is lost": `DELETE FROM audit_changes`,
		"a change is none": `UPDATE audit_changes SET new_status = 'RESERVED'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, a := spanned(t)
			b.deliver(unpaid(t, 5))
			b.order(30, 60)
			b.closes(a)
			b.past(plant)
			var closed int
			if err := b.db.QueryRow(t.Context(), `SELECT closed FROM audit_horizon`).Scan(&closed); err != nil {
				t.Fatal(err)
			}
			changed := func(one facts.Breach) bool { return one.Kind == stockChanged }
			var found []facts.Breach
			for turns := 0; !slices.ContainsFunc(found, changed); turns++ { // each audit reads one span at least, the one that was read longest ago first
				if turns > closed {
					t.Fatalf("the change is not found in %d audits of %d spans", turns, closed)
				}
				var err error
				if found, err = a.audit(t.Context(), false); err != nil {
					t.Fatal(err)
				}
			}
			if mismatch := slices.ContainsFunc(found, func(one facts.Breach) bool { return one.Kind == "stock-mismatch" }); mismatch != (name == "released" || name == "lost") {
				t.Errorf("found %v", found)
			}
			request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`)
			for range 2 {
				found, err := a.audit(t.Context(), false)
				if err != nil || !slices.ContainsFunc(found, changed) {
					t.Errorf("after a recount: %v %v", found, err)
				}
			}
			b.exec(`UPDATE audit_spans SET suspect = true`) // what is noted of changes is in a span of its own
			if found, err := a.audit(t.Context(), false); err != nil || !slices.ContainsFunc(found, changed) {
				t.Errorf("all read again: %v %v", found, err)
			}
			b.exec(`UPDATE audit_spans SET changed_at = changed_at - interval '2 days' WHERE changed_at IS NOT NULL`)
			if found, err := a.audit(t.Context(), false); err != nil || len(found) > 0 {
				t.Errorf("after a turn: %v %v", found, err)
			}
		})
	}
}

// Who counts a product anew by a reservation that was changed past the triggers is found out by the next audit: what is
// kept says otherwise.
func TestRecountOfClosedReservations(t *testing.T) {
	t.Parallel()
	b, a := spanned(t)
	b.order(30, 60)
	b.closes(a)
	b.past(`UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = '01980d2e-0000-7000-8000-000000000014'`)
	b.exec(`UPDATE audit_spans SET read_at = '2020-01-01' WHERE span <> 1`) // the others come first
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	b.finds(a, false, "stock-mismatch tea")
	b.finds(a, false, "stock-changed reservations 11 to 20")
	b.past(`UPDATE reservations SET status = 'RESERVED', released_at = NULL WHERE order_id = '01980d2e-0000-7000-8000-000000000014'`)
	b.finds(a, false, "stock-mismatch tea")
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK {
		t.Fatalf("%d %v", status, body)
	}
	b.finds(a, false)
	b.consistent()
}

// An old movement that was changed is found in its product's turn, and told until it is right again.
func TestOldMovementsAreReadAgain(t *testing.T) {
	t.Parallel()
	b, a := spanned(t)
	b.move(b.api(), "tea", movement(2, "receipt", 2), 201)
	b.finds(a, false)
	b.exec(`UPDATE movements SET units = 9, delta = 9 WHERE product_id = 'tea' AND n = 2`)
	b.finds(a, false)
	b.finds(a, true, "stock-mismatch tea")
	b.exec(`UPDATE audit_horizon SET walked_at = now() - interval '13 hours'`) // half of a turn, and so of two products
	b.finds(a, false)
	b.exec(`UPDATE audit_horizon SET walked_at = now() - interval '13 hours'`)
	b.finds(a, false, "stock-mismatch tea")
	b.finds(a, false, "stock-mismatch tea")
	b.exec(`UPDATE movements SET units = 5, delta = 5 WHERE product_id = 'tea' AND n = 2`)
	b.finds(a, false)
	b.exec(`UPDATE audit_horizon SET walked_at = now() - interval '30 days'`)
	for range 3 {
		b.finds(a, false)
	}
	var behind time.Duration
	if err := b.db.QueryRow(t.Context(), `SELECT now() - walked_at FROM audit_horizon`).Scan(&behind); err != nil || behind > 13*time.Hour {
		t.Errorf("products were walked up to %s ago, %v", behind, err)
	}
}

// What an audit reads of reservations and movements, beside a turn's share of the closed ones, is what is new: not what
// is stored.
func TestAuditReadsWhatIsNew(t *testing.T) {
	t.Parallel()
	for _, stored := range []int{10_000, 40_000} { // reservations, and movements of ten products
		b := setup(t)
		a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 2000}
		b.exec(`INSERT INTO products (id, name, price, currency, stock, available, reserved)
			SELECT 'p-' || p, 'p', 100, 'EUR', $1::int / 10, 0, $1::int / 10 FROM generate_series(0, 9) AS p`, stored)
		b.exec(`UPDATE products SET movements = $1::int / 10`, stored)
		b.exec(`DELETE FROM movements`)
		b.exec(`INSERT INTO movements (product_id, n, id, kind, units, delta, stock, note)
			SELECT 'p-' || i % 10, i / 10 + 1, uuidv7(), 'receipt', 1, 1, i / 10 + 1, '' FROM generate_series(0, $1::int - 1) AS i`, stored)
		b.exec(`UPDATE movements SET kind = 'count' WHERE n = 1`)
		b.exec(`INSERT INTO reservations (order_id, status, items, reason)
			SELECT uuidv7(), 'RESERVED', jsonb_build_array(jsonb_build_object('productId', 'p-' || i % 10, 'quantity', 1)), '' FROM generate_series(1, $1::int) AS i`, stored)
		b.exec(`ANALYZE`)
		b.closes(a)
		b.move(b.api(), "p-2", movement(1, "receipt", 5), 201)
		b.deliver(created(t, 1, Line{"p-2", 1}))
		b.deliver(unpaid(t, 1))
		b.finds(a, false)
		var read float64
		err := a.spans().AsOfOneMoment(t.Context(), func(tx pgx.Tx, after int64) error {
			read = b.rowsOf(tx, newHeldSQL, after, int64(math.MaxInt64), facts.MostBreaches)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		read += b.rowsOf(b.db, newMovementsSQL, facts.MostBreaches)
		one := b.rowsOf(b.db, digestSpanSQL, 0, a.width)
		t.Logf("of %d, what is new takes %v rows, and a closed span %v", stored, read, one)
		if read > 150 || one > 2500 {
			t.Errorf("of %d, what is new takes %v rows, and a closed span of 2000 takes %v", stored, read, one)
		}
	}
}

// rowsOf counts the rows of reservations, changes and movements that a statement reads.
func (b bundle) rowsOf(db facts.Querier, sql string, args ...any) (read float64) {
	b.Helper()
	rows, _ := db.Query(b.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...) // the error surfaces in the collector
	text, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]byte])
	if err != nil {
		b.Fatal(err)
	}
	type node struct {
		Table   string  `json:"Relation Name"`
		Rows    float64 `json:"Actual Rows"`
		Loops   float64 `json:"Actual Loops"`
		Removed float64 `json:"Rows Removed by Filter"`
		Recheck float64 `json:"Rows Removed by Index Recheck"`
		Plans   []node
	}
	var explained []struct{ Plan node }
	if err := json.Unmarshal(text, &explained); err != nil {
		b.Fatal(err)
	}
	var walk func(node)
	walk = func(n node) {
		if slices.Contains([]string{"reservations", "audit_changes", "movements"}, n.Table) {
			read += n.Loops * (n.Rows + n.Removed + n.Recheck)
		}
		for _, one := range n.Plans {
			walk(one)
		}
	}
	walk(explained[0].Plan)
	return read
}

// The API takes full, and answers what breaks the rules.
func TestAuditOverHTTP(t *testing.T) {
	t.Parallel()
	b, a := spanned(t)
	server := web.New(web.Config{Service: "inventory"})
	facts.Server{DB: b.db, Service: Choreography(), Source: source, Audit: a.audit}.Register(server.API)
	b.past(`UPDATE reservations SET order_id = uuidv7()`) // which no rule but the spans' knows of
	for path, status := range map[string]int{"/facts/audit": http.StatusOK, "/facts/audit?full=true": http.StatusOK, "/facts/audit?full=perhaps": http.StatusUnprocessableEntity} {
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		if changed := strings.Contains(w.Body.String(), stockChanged); w.Code != status || changed != (status == http.StatusOK) {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
}

// Reservations that were there before they had numbers are audited as those that come; and processes of the version
// before, whose statements know nothing of numbers and changes, can go on.
func TestReservationsFromBeforeNumbers(t *testing.T) {
	t.Parallel()
	before := fstest.MapFS{}
	all, err := fs.ReadDir(migrations.For("inventory"), ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		data, err := fs.ReadFile(migrations.For("inventory"), file.Name())
		if err != nil {
			t.Fatal(err)
		}
		if file.Name() < "00007" {
			before[file.Name()] = &fstest.MapFile{Data: data}
		}
	}
	db := pgtest.New(t, "inventory before numbers", func(ctx context.Context, db *pgxpool.Pool) error {
		if err := sagatest.Migrate(pg.Migration{Name: "inventory", FS: before})(ctx, db); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, `INSERT INTO products (id, name, price, currency, stock, available, reserved) VALUES ('tea', 'tea', 100, 'EUR', 100, 75, 25)`); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, `INSERT INTO reservations (order_id, status, items, reason)
			SELECT ('01980d2e-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 'RESERVED', '[{"productId": "tea", "quantity": 1}]', '' FROM generate_series(1, 25) AS i`); err != nil {
			return err
		}
		return sagatest.Migrate(pg.Migration{Name: "inventory", FS: migrations.For("inventory")})(ctx, db)
	})
	b := bundle{t, db}
	a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 10}
	b.closes(a)
	b.exec(`INSERT INTO reservations (order_id, status, items, reason) VALUES ($1, 'RESERVED', '[{"productId": "tea", "quantity": 2}]', '')`, order(99))
	b.exec(`UPDATE reservations SET status = 'RELEASED', released_at = now() WHERE order_id = ANY($1)`, []uuid.UUID{order(1), order(2), order(3)})
	b.exec(`UPDATE products SET available = available + 1, reserved = reserved - 1`)
	b.exec(`UPDATE audit_spans SET suspect = true`)
	b.finds(a, false)
	b.finds(a, true)
	b.consistent()
}
