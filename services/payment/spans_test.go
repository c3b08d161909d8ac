package payment

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// spanned is a ledger that is audited by spans of ten entries, with so many orders paid, and audited until all that is
// settled is closed.
func spanned(t *testing.T, orders int) (bundle, *auditor) {
	t.Helper()
	b := setup(t)
	a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 10}
	b.pay(1, orders)
	b.closes(a)
	return b, a
}

// closes audits until all full spans are closed: what one audit has seen is settled when the transactions of its time
// have ended.
func (b bundle) closes(a *auditor) {
	b.Helper()
	var full int64
	if err := b.db.QueryRow(b.Context(), `SELECT last_value / $1 FROM entries_n_seq`, a.width).Scan(&full); err != nil {
		b.Fatal(err)
	}
	b.finds(a, false)
	for closed := int64(-1); closed < full && b.Context().Err() == nil; closed, _ = b.horizon() {
		b.finds(a, false)
	}
}

// pay has the orders from one on to another paid, each by a user of its own.
func (b bundle) pay(from, to int) {
	b.Helper()
	var records []broker.Record
	for n := from; n <= to; n++ {
		records = append(records, reserved(b.T, n, fmt.Sprintf("u-%d", n), 100))
	}
	b.deliver(records...)
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

// horizon is how many spans are closed, and summed up.
func (b bundle) horizon() (closed, summed int64) {
	b.Helper()
	if err := b.db.QueryRow(b.Context(), `SELECT closed, summed FROM audit_horizon`).Scan(&closed, &summed); err != nil {
		b.Fatal(err)
	}
	return closed, summed
}

// rowsOf counts the rows of entries and payments that a statement reads.
func (b bundle) rowsOf(tx pgx.Tx, sql string, args ...any) (read float64) {
	b.Helper()
	var text []byte
	if err := tx.QueryRow(b.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...).Scan(&text); err != nil {
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
		if n.Table == "entries" || n.Table == "payments" {
			read += n.Loops * (n.Rows + n.Removed + n.Recheck)
		}
		for _, one := range n.Plans {
			walk(one)
		}
	}
	walk(explained[0].Plan)
	return read
}

// What is wrong with new entries and payments is found at once by what is kept of the old ones, as by reading all.
// Spans end anywhere, also between the two entries of a transfer.
func TestAuditBySpans(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, plant string
		want        []string
	}{
		{"a balance", `UPDATE accounts SET balance = balance + 7 WHERE id = 'u-3'`, []string{"balance-mismatch u-3"}},
		{"an account is lost", `DELETE FROM accounts WHERE id = 'u-3'`, []string{"balance-mismatch u-3"}},
		{"half of a new charge is lost", `DELETE FROM entries WHERE account_id = 'u-99' AND kind = 'charge'`, []string{"balance-mismatch u-99", "transfer-unbalanced PAYMENT"}},
		{"a new payment is lost", `DELETE FROM payments WHERE user_id = 'u-99'`, []string{"charge-without-payment ORDER"}},
		{"a new payment is another", `UPDATE payments SET status = 'FAILED', reason = 'planted' WHERE user_id = 'u-99'`, []string{"payment-mismatch ORDER"}},
		{
			"a new charge is lost", `WITH gone AS (DELETE FROM entries WHERE order_id = '01980d2e-0000-7000-8000-000000000099' RETURNING account_id, amount)
				INSERT INTO pending (account_id, amount) SELECT account_id, -amount FROM gone`, []string{"payment-mismatch ORDER"},
		},
		{"a deposit's record is lost", `DELETE FROM transfers`, []string{"transfer-mismatch 01980d2e-0000-7000-8000-0000000000dd"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, a := spanned(t, 23)
			if closed, summed := b.horizon(); closed != 9 || summed != closed {
				t.Errorf("%d spans are closed and %d summed up, want 9", closed, summed)
			}
			b.pay(99, 99)
			b.bring(1, "REFUNDED") // an old order, now
			b.depositOnce()
			b.finds(a, false)
			b.exec(tc.plant)
			id := b.payments()[order(99)].ID.String()
			var want []string
			for _, one := range tc.want {
				want = append(want, strings.NewReplacer("PAYMENT", id, "ORDER", order(99).String()).Replace(one))
			}
			b.finds(a, false, want...)
			b.finds(a, true, want...)
			b.finds(a, false, want...) // what is wrong stays so when its span is closed
		})
	}
}

// A closed entry that somebody has changed is found when it is its span's turn, and then with all that it breaks; it is
// told for as long as a turn takes, or until it is as it was.
func TestClosedSpansAreReadAgain(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, plant, undo string
		broken            []string // rules
	}{
		{
			"half of a charge", `UPDATE entries SET amount = amount - 1 WHERE account_id = 'u-1' AND kind = 'charge'`, `UPDATE entries SET amount = amount + 1 WHERE account_id = 'u-1' AND kind = 'charge'`,
			[]string{"balance-mismatch u-1", "ledger-changed SPAN", "payment-mismatch " + order(1).String(), "transfer-unbalanced PAYMENT"},
		},
		{
			"who was paid", `UPDATE entries SET counterparty = 'mallory' WHERE account_id = 'u-1' AND kind = 'charge'`, `UPDATE entries SET counterparty = 'merchant.EUR' WHERE account_id = 'u-1' AND kind = 'charge'`,
			[]string{"entries-mismatch PAYMENT", "ledger-changed SPAN"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, a := spanned(t, 23)
			var span int64
			if err := b.db.QueryRow(t.Context(), `SELECT (n - 1) / 10 FROM entries WHERE account_id = 'u-1' AND kind = 'charge'`).Scan(&span); err != nil {
				t.Fatal(err)
			}
			b.exec(tc.plant)
			want := tc.broken
			for i, one := range want {
				want[i] = strings.NewReplacer("PAYMENT", b.payments()[order(1)].ID.String(), "SPAN", fmt.Sprintf("entries %d to %d", span*10+1, span*10+10)).Replace(one)
			}
			turns := 0
			for closed, _ := b.horizon(); ; turns++ { // each audit reads one span at least, the one that was read longest ago first
				found, err := a.audit(t.Context(), false)
				if err != nil {
					t.Fatal(err)
				}
				if slices.ContainsFunc(found, func(one facts.Breach) bool { return one.Kind == ledgerChanged }) {
					break
				}
				if int64(turns) > closed {
					t.Fatalf("the change is not found in %d audits of %d spans", turns, closed)
				}
			}
			b.finds(a, false, want...)
			b.finds(a, false, want...)
			b.exec(tc.undo)
			b.finds(a, false)

			b.exec(tc.plant)
			b.exec(`UPDATE audit_spans SET read_at = '2020-01-01' WHERE span = $1`, span)
			b.finds(a, false, want...)
			b.exec(`UPDATE audit_spans SET changed_at = changed_at - interval '2 days' WHERE changed_at IS NOT NULL`)
			var left []string
			for _, one := range want {
				if !strings.HasPrefix(one, ledgerChanged) {
					left = append(left, one)
				}
			}
			b.finds(a, false, left...)
		})
	}
}

// No span is closed below a transaction that has numbered an entry and has not ended.
func TestNoSpanIsClosedEarly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 10}
	tx, err := b.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec(t.Context(), `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
		SELECT account, '01980d2e-0000-7000-8000-0000000000ee', 'charge', amount, other FROM (VALUES ('merchant.EUR', 5, 'u-1'), ('u-1', -5, 'merchant.EUR')) AS e (account, amount, other)`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO pending (account_id, amount) VALUES ('merchant.EUR', 5), ('u-1', -5)`); err != nil {
		t.Fatal(err)
	}
	b.pay(1, 23)
	for range 3 {
		b.finds(a, false)
	}
	if closed, _ := b.horizon(); closed != 0 {
		t.Errorf("%d spans are closed above an entry that is to come", closed)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.closes(a)
}

// What an audit reads of entries, beside a turn's share of the closed ones, is what is new: not what is stored.
func TestAuditReadsWhatIsNew(t *testing.T) {
	t.Parallel()
	for _, stored := range []int{20_000, 120_000} { // entries
		b := setup(t)
		a := &auditor{db: b.db, reread: 24 * time.Hour, most: time.Hour, width: 5000}
		b.exec(`INSERT INTO accounts (id, currency, balance, overdraft) VALUES ('merchant.EUR', 'EUR', $1, false), ('external.EUR', 'EUR', -$1, true)`, stored/2)
		b.exec(`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
			SELECT e.account, ('01980d2e-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 'opening', e.amount, e.other
			FROM generate_series(1, $1::bigint) AS i, LATERAL (VALUES ('merchant.EUR', 1, 'external.EUR'), ('external.EUR', -1, 'merchant.EUR')) AS e (account, amount, other)`, stored/2)
		b.closes(a)
		b.pay(1, 5)
		b.exec(`SELECT brin_summarize_new_values('entries_n')`)
		b.exec(`ANALYZE entries`)
		_, summed := b.horizon()
		tx, err := b.db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range facts.SumsPlan {
			if _, err := tx.Exec(t.Context(), set); err != nil {
				t.Fatal(err)
			}
		}
		read := b.rowsOf(tx, newHalvesSQL, facts.MostBreaches, summed*a.width) + b.rowsOf(tx, newBalancesSQL, facts.MostBreaches, summed*a.width)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tx, err = b.db.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		read += b.rowsOf(tx, ordersOfEntriesSQL, facts.MostBreaches, summed*a.width, int64(math.MaxInt64)) + b.rowsOf(tx, recordsSQL, facts.MostBreaches, summed*a.width, int64(math.MaxInt64))
		one := b.rowsOf(tx, digestSpanSQL, 0, a.width)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("of %d entries, four statements about 20 new ones read %v, and a closed span is %v", stored, read, one)
		const span = 26_000 // entries of a span, and of the ranges of pages at its ends
		if read > 3*span+1000 || one > span {
			t.Errorf("of %d entries, four statements about 20 new ones read %v, and a closed span of 5000 is %v", stored, read, one)
		}
	}
}

// The API takes full, and answers what breaks the rules.
func TestAuditOverHTTP(t *testing.T) {
	t.Parallel()
	b, a := spanned(t, 3)
	server := web.New(web.Config{Service: "payment"})
	facts.Server{DB: b.db, Service: Choreography(b.Config), Source: source, Audit: a.audit}.Register(server.API)
	b.exec(`UPDATE entries SET counterparty = 'mallory'`) // which no rule but the spans' knows of
	for path, status := range map[string]int{"/facts/audit": http.StatusOK, "/facts/audit?full=true": http.StatusOK, "/facts/audit?full=perhaps": http.StatusUnprocessableEntity} {
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		if changed := strings.Contains(w.Body.String(), ledgerChanged); w.Code != status || changed != (status == http.StatusOK) {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
}
