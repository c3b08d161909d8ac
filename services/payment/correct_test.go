package payment

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

// correct posts a correction, with these fields beside its id and what every one has.
func (b bundle) correct(n int, fields string) (int, map[string]any) {
	b.Helper()
	body := fmt.Sprintf(`{"correctionId":%q,"currency":"EUR","note":"planted","by":"a test",%s}`, id(n), fields)
	return request(b.T, b.api(), "POST", "/ledger/corrections", body)
}

// side1 is an entry as a correction's answer shows it.
func side1(account, kind string, amount int) map[string]any {
	return map[string]any{"accountId": account, "kind": kind, "amount": float64(amount)}
}

// stray is a transfer with one entry.
const stray = "01980d2e-0000-7000-8000-0000000000ff"

// Whatever a transfer lacks that the balances do not tell, a person's correction makes it whole, and the audit finds
// nothing more; entries are not changed, and orders stay as paid as they are.
func TestCorrectedTransferIsWhole(t *testing.T) {
	t.Parallel()
	half := func(account string) string {
		return `DELETE FROM entries WHERE account_id = '` + account + `' AND kind = 'charge'; UPDATE accounts SET balance = balance + 7 WHERE id = 'u-1'`
	}
	ofPayment := func(b bundle) string { return b.payments()[order(1)].ID.String() }
	ofStray := func(bundle) string { return stray }
	onlyIts := `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty) VALUES ('u-1', '` + stray + `', 'transfer', %[1]d, 'merchant.EUR');
		INSERT INTO pending (account_id, amount) VALUES ('u-1', %[1]d)`
	for name, tc := range map[string]struct {
		plant    string
		transfer func(bundle) string
		side     string
		posted   map[string]any
		recount  string // what is counted anew then: a balance, or a transfer, whose record is lost, too
		moved    int64  // the user's balance, from what it was before the planting
	}{
		"an entry that only its account knows, to nobody yet": {fmt.Sprintf(onlyIts, 5), ofStray, `"debit":"suspense.EUR","amount":5`, side1("suspense.EUR", "correction", -5), "", 5},
		"an entry that only its account knows, from nobody":   {fmt.Sprintf(onlyIts, -5), ofStray, `"credit":"suspense.EUR","amount":5`, side1("suspense.EUR", "correction", 5), "", -5},
		"an entry that only its account knows, as it says":    {fmt.Sprintf(onlyIts, 5), ofStray, `"debit":"merchant.EUR","amount":5`, side1("merchant.EUR", "transfer", -5), "/transfers/" + stray, 5},
		"an entry that only its account knows, taken back":    {fmt.Sprintf(onlyIts, 5), ofStray, `"debit":"u-1","amount":5`, side1("u-1", "correction", -5), "", 0},
		"the payer's half and a balance":                      {half("u-1"), ofPayment, `"debit":"u-1","amount":100`, side1("u-1", "charge", -100), "/accounts/u-1", 0},
		"the merchant's half and a balance":                   {half("merchant.EUR"), ofPayment, `"credit":"merchant.EUR","amount":100`, side1("merchant.EUR", "charge", 100), "/accounts/u-1", 0},
		"one that lost a part": {
			`UPDATE entries SET amount = -90 WHERE account_id = 'u-1' AND kind = 'charge'`, ofPayment, `"debit":"u-1","amount":10`, side1("u-1", "charge", -10), "", 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.deposit("merchant.EUR", 50)
			before := b.balance("u-1")
			for sql := range strings.SplitSeq(tc.plant, ";") {
				b.exec(sql)
			}
			transfer := tc.transfer(b)
			if !strings.Contains(strings.Join(b.breaches(), "\n"), "transfer-unbalanced "+transfer) {
				t.Errorf("found %v", b.breaches())
			}
			if w := b.post("/transfers/"+transfer+"/recount", `{}`); w.Code != http.StatusConflict {
				t.Errorf("a recount decides it: %d %s", w.Code, w.Body)
			}
			entries := b.entries()
			fields := fmt.Sprintf(`"transferId":%q,%s`, transfer, tc.side)
			held := b.everything()
			status, dry := b.correct(1, fields+`,"dryRun":true`)
			if diff := cmp.Diff(held, b.everything()); diff != "" || status != http.StatusOK {
				t.Errorf("dry: %d %v (-before +after):\n%s", status, dry, diff)
			}
			status, done := b.correct(1, fields)
			if diff := cmp.Diff(dry, done); diff != "" || status != http.StatusCreated {
				t.Fatalf("%d (-dry +done):\n%s", status, diff)
			}
			want(t, any([]any{tc.posted}), done["entries"])
			want(t, entries, b.entries()[:len(entries)])
			if tc.recount != "" {
				if w := b.post(tc.recount+"/recount", `{}`); w.Code != http.StatusOK {
					t.Errorf("recount: %d %s", w.Code, w.Body)
				}
			}
			want(t, tc.moved, b.balance("u-1")-before)
			want(t, Completed, b.payments()[order(1)].Status)
			b.clean()
			held = b.everything()
			if status, again := b.correct(1, fields); status != http.StatusCreated || !cmp.Equal(done, again) || held != b.everything() {
				t.Errorf("again: %d %v\n%s", status, again, cmp.Diff(held, b.everything()))
			}
			b.deliver(cancelled(t, 1))
			want(t, Refunded, b.payments()[order(1)].Status)
			b.clean()
		})
	}
}

// entries are all of them, in the order of their writing.
func (b bundle) entries() (all []string) {
	b.Helper()
	if err := b.db.QueryRow(b.Context(), `SELECT array_agg(e::text ORDER BY n) FROM entries e`).Scan(&all); err != nil {
		b.Fatal(err)
	}
	return all
}

// clean holds the ledger to the service's own rules alone: one that was corrected may have a transfer of more than two
// entries.
func (b bundle) clean() {
	b.Helper()
	if found := b.breaches(); found != nil {
		b.Errorf("rules are broken: %v", found)
	}
}

// A correction is a transfer like any other: posted once, by as many as ask at once, refused for the same reasons,
// shown in the statements of both accounts and in the list; what is in suspense goes to whom it belongs.
func TestCorrections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 100
	b.bring(1, "COMPLETED") // u-1 has nothing left
	b.deposit("bob", 50)
	want(t, []int64{0, 150}, []int64{b.balance("u-1"), b.balance("bob")})

	before := b.everything()
	status, short := b.correct(1, `"debit":"u-1","credit":"bob","amount":5`)
	want(t, any(web.TypePrefix+insufficientBalance), short["type"])
	want(t, http.StatusConflict, status)
	b.freeze("bob", true)
	status, frozen := b.correct(1, `"debit":"bob","credit":"u-1","amount":5`)
	want(t, any(web.TypePrefix+accountFrozen), frozen["type"])
	want(t, http.StatusConflict, status)
	b.freeze("bob", false)
	want(t, before, b.everything())

	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			status, done := b.correct(1, `"debit":"suspense.EUR","credit":"u-1","amount":5,"orderId":"`+order(1).String()+`"`)
			if status != http.StatusCreated || done["transferId"] != id(1) {
				t.Errorf("%d %v", status, done)
			}
		})
	}
	all.Wait()
	want(t, []int64{5, -5}, []int64{b.balance("u-1"), b.balance("suspense.EUR")})
	if status, done := b.correct(2, `"debit":"bob","credit":"suspense.EUR","amount":5`); status != http.StatusCreated {
		t.Errorf("%d %v", status, done)
	}
	want(t, []int64{5, 0, 145}, []int64{b.balance("u-1"), b.balance("suspense.EUR"), b.balance("bob")})
	b.audit()

	_, statement := request(t, b.api(), "GET", "/accounts/u-1/entries?limit=1", "")
	want(t, any([]any{map[string]any{"transferId": id(1), "kind": "correction", "amount": 5.0, "counterparty": "suspense.EUR"}}), statement["entries"])
	_, page := request(t, b.api(), "GET", "/ledger/corrections?limit=1", "")
	first, second := page["corrections"].([]any), []any(nil)
	if cursor, ok := page["nextCursor"].(string); ok {
		_, page = request(t, b.api(), "GET", "/ledger/corrections?limit=1&cursor="+cursor, "")
		second = page["corrections"].([]any)
	}
	for _, one := range append(first, second...) {
		delete(one.(map[string]any), "createdAt")
	}
	record := func(n int, from, to string, more map[string]any) map[string]any {
		r := map[string]any{"correctionId": id(n), "transferId": id(n), "currency": "EUR", "note": "planted", "by": "a test", "entries": []any{side1(from, "correction", -5), side1(to, "correction", 5)}}
		maps.Copy(r, more)
		return r
	}
	want(t, []any{record(2, "bob", "suspense.EUR", nil), record(1, "suspense.EUR", "u-1", map[string]any{"orderId": order(1).String()})}, append(first, second...))
	if page["nextCursor"] != nil {
		t.Errorf("a page after the last: %v", page)
	}
	b.deliver(cancelled(t, 1)) // the order is as paid as it was
	want(t, int64(105), b.balance("u-1"))
	b.audit()
}

// A correction in a currency is of the accounts in it.
func TestCorrectionOfAFurtherAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
	b.exec(`DELETE FROM entries WHERE account_id = E'u-1\tUSD' AND kind = 'charge'`)
	b.exec(`UPDATE accounts SET balance = balance + 7 WHERE id = E'u-1\tUSD'`)
	body := fmt.Sprintf(`{"correctionId":%q,"transferId":%q,"debit":"u-1","amount":100,"currency":"%%s","note":"planted","by":"a test"}`, id(1), b.payments()[order(2)].ID)
	if status, got := request(t, b.api(), "POST", "/ledger/corrections", fmt.Sprintf(body, "EUR")); status != http.StatusConflict || got["type"] != web.TypePrefix+currencyMismatch {
		t.Errorf("%d %v", status, got)
	}
	if status, got := request(t, b.api(), "POST", "/ledger/corrections", fmt.Sprintf(body, "USD")); status != http.StatusCreated {
		t.Errorf("%d %v", status, got)
	}
	b.post("/accounts/u-1%09USD/recount", `{}`)
	want(t, map[string]int64{"u-1": plenty - 10, "u-1\tUSD": plenty - 100}, b.holdings())
	b.audit()
}

// What cannot be a correction names the field; what does not fit the ledger is refused; nothing of it is stored.
func TestBadCorrections(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.exec(`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty) VALUES ('u-1', $1, 'transfer', 5, 'merchant.EUR')`, stray)
	b.exec(`INSERT INTO pending (account_id, amount) VALUES ('u-1', 5)`)
	if status, got := b.correct(1, `"debit":"u-1","credit":"suspense.EUR","amount":1`); status != http.StatusCreated {
		t.Fatalf("%d %v", status, got)
	}
	before := b.everything()
	ofStray := `"transferId":"` + stray + `",`
	for _, tc := range []struct {
		name, fields string
		n, status    int
		typ, field   string
	}{
		{"no debit", `"credit":"u-1","amount":1`, 2, 422, "invalid-request", "body.debit"},
		{"no credit", `"debit":"u-1","amount":1`, 2, 422, "invalid-request", "body.credit"},
		{"to itself", `"debit":"u-1","credit":"u-1","amount":1`, 2, 422, "invalid-request", "body.credit"},
		{"from nobody", `"debit":"eve","credit":"u-1","amount":1`, 2, 422, "unknown-account", "body.debit"},
		{"to nobody", `"debit":"u-1","credit":"eve","amount":1`, 2, 422, "unknown-account", "body.credit"},
		{"nothing", `"debit":"u-1","credit":"suspense.EUR","amount":0`, 2, 422, "invalid-request", "body.amount"},
		{"from another currency", `"debit":"suspense.USD","credit":"u-1","amount":1`, 2, 409, "currency-mismatch", ""},
		{"another under its id", `"debit":"u-1","credit":"suspense.EUR","amount":2`, 1, 422, "transfer-id-reused", "body.correctionId"},
		{"both sides of a transfer", ofStray + `"debit":"suspense.EUR","credit":"u-1","amount":5`, 2, 422, "invalid-request", "body.credit"},
		{"no side of a transfer", ofStray + `"amount":5`, 2, 422, "invalid-request", "body.credit"},
		{"its own transfer", `"transferId":"` + id(2) + `","debit":"suspense.EUR","amount":5`, 2, 422, "invalid-request", "body.transferId"},
		{"the order of a transfer", ofStray + `"debit":"suspense.EUR","amount":5,"orderId":"` + order(1).String() + `"`, 2, 422, "invalid-request", "body.orderId"},
		{"no transfer", `"transferId":"` + uuid.NewString() + `","debit":"suspense.EUR","amount":5`, 2, 404, "not-found", ""},
		{"a transfer that is whole", `"transferId":"` + b.payments()[order(1)].ID.String() + `","debit":"suspense.EUR","amount":5`, 2, 409, "does-not-balance", ""},
		{"too much", ofStray + `"debit":"suspense.EUR","amount":6`, 2, 409, "does-not-balance", ""},
		{"the wrong side", ofStray + `"credit":"suspense.EUR","amount":5`, 2, 409, "does-not-balance", ""},
		{"a side that is nobody's", ofStray + `"debit":"eve","amount":5`, 2, 422, "unknown-account", "body.debit"},
		{"a side in another currency", ofStray + `"debit":"suspense.USD","amount":5`, 2, 409, "currency-mismatch", ""},
	} {
		status, got := b.correct(tc.n, tc.fields)
		field := ""
		if errs, ok := got["errors"].([]any); ok && len(errs) > 0 {
			field, _ = errs[0].(map[string]any)["location"].(string)
		}
		if status != tc.status || got["type"] != web.TypePrefix+tc.typ || field != tc.field || got["detail"] == "" {
			t.Errorf("%s: %d %v, want %d %s %s", tc.name, status, got, tc.status, tc.typ, tc.field)
		}
	}
	want(t, before, b.everything())
	if text, err := json.Marshal(b.breaches()); err != nil || !strings.Contains(string(text), stray) {
		t.Errorf("the transfer is whole: %s %v", text, err)
	}
}
