package payment

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// reservedIn is [reserved] of an order in another currency.
func reservedIn(t *testing.T, currency string, n int, user string, amount int64) broker.Record {
	t.Helper()
	return sagatest.Record(t, saga.New(t.Context(), event.InventoryReserved, order(n).String(),
		event.InventoryReservedV1{OrderID: order(n), UserID: user, Amount: amount, Currency: currency}))
}

// holdings are what users' accounts hold, by id.
func (b bundle) holdings() map[string]int64 {
	b.Helper()
	rows, _ := b.db.Query(b.Context(), `SELECT id, (balance + coalesce((SELECT sum(amount) FROM pending WHERE account_id = a.id), 0))::bigint
FROM accounts a WHERE id !~ '^(merchant|external)[.]'`)
	held := map[string]int64{}
	var id string
	var amount int64
	if _, err := pgx.ForEachRow(rows, []any{&id, &amount}, func() error { held[id] = amount; return nil }); err != nil {
		b.Fatal(err)
	}
	return held
}

// A user's first order binds nobody to its currency, be it declined: each currency has an account of its own, an order
// is paid from the one in its currency, alone and among others in a batch, and paid back into that.
func TestAccountsByCurrency(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 500
	said := b.told(b.deliver(reservedIn(t, "ZZZ", 1, "u-7", 5000))...) // above the limit
	want(t, []string{order(1).String() + ": amount 5000 is above the limit of 1000"}, said)
	b.deliver(reservedIn(t, "EUR", 2, "u-7", 100), reservedIn(t, "USD", 3, "u-7", 200), reservedIn(t, "EUR", 4, "u-7", 50), reservedIn(t, "USD", 5, "u-8", 7))
	want(t, map[string]int64{"u-7": 500, "u-7\tEUR": 350, "u-7\tUSD": 300, "u-8": 493}, b.holdings())

	short := b.told(b.deliver(reservedIn(t, "EUR", 6, "u-7", 351))...) // there are 300 USD beside it
	want(t, []string{order(6).String() + ": insufficient balance: 351 wanted, 350 available"}, short)

	b.deliver(cancelled(t, 3), cancelled(t, 4))
	want(t, map[string]int64{"u-7": 500, "u-7\tEUR": 400, "u-7\tUSD": 500, "u-8": 493}, b.holdings())
	want(t, []int64{100, 7}, []int64{b.balance("merchant.EUR"), b.balance("merchant.USD")})
	b.audit()

	for _, x := range []Transfer{in("USD", Move, "u-7", "u-8", 500), in("EUR", Deposit, "external.EUR", "u-8", 1)} {
		want(t, "", b.move(x))
	}
	want(t, map[string]int64{"u-7": 500, "u-7\tEUR": 400, "u-7\tUSD": 0, "u-8": 993, "u-8\tEUR": 501}, b.holdings())
	b.audit()
}

// Events name the currency, those too of a refund that is answered again.
func TestEventsNameTheCurrency(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, r := range b.deliver(reservedIn(t, "USD", 1, "u-1", 100)) {
		want(t, "USD", sagatest.Decode(t, event.PaymentCompleted, r).Currency)
	}
	for range 2 {
		for _, r := range b.deliver(cancelled(t, 1)) {
			want(t, "USD", sagatest.Decode(t, event.PaymentRefunded, r).Currency)
		}
	}
}

// No user can be called what a further account is: whose money that is would be anybody's guess.
func TestNoUserIsCalledAsAFurtherAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "ada", 1), reservedIn(t, "USD", 2, "ada", 1))
	before := b.holdings()
	said := b.told(b.deliver(reservedIn(t, "USD", 3, "ada\tUSD", 1))...)
	want(t, []string{order(3).String() + ": account ada\tUSD is not a user's"}, said)
	b.deliver(reservedIn(t, "USD", 4, "ada USD", 1), reservedIn(t, "USD", 5, "ada.USD", 1))
	held := b.holdings()
	want(t, before, map[string]int64{"ada": held["ada"], "ada\tUSD": held["ada\tUSD"]})
	b.audit()
}

// Whoever is first with a user, in whatever currencies, at once and beside processes of the previous version, which
// know one account a user: of each currency there is one account, nobody waits for the other's lock while holding one,
// and no money of one currency becomes another's.
func TestFirstAccountsRace(t *testing.T) {
	t.Parallel()
	const rounds, users = 12, 4
	currencies := []string{"CHF", "EUR", "USD"}
	b := setup(t)
	b.Opening = 1000
	k := b.bank()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	try := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	}
	n := 0
	for round := range rounds {
		for c, currency := range currencies {
			var batch []broker.Record
			for u := range users {
				n++
				batch = append(batch, reservedIn(t, currency, n, fmt.Sprintf("u-%d-%d", round/3, (u+c+round)%users), 10))
			}
			all.Go(func() { sagatest.Deliver(t, b.db, Choreography(b.Config), batch...) })
			all.Go(func() {
				user := fmt.Sprintf("u-%d-%d", round/3, c)
				_, err := k.transfer(t.Context(), b.db, in(currency, Deposit, k.externalOf(currency), user, 5))
				try(err)
				try((&balanceFolder{db: b.db}).fold(t.Context()))
				_, err = k.transfer(t.Context(), b.db, in(currency, Move, user, fmt.Sprintf("u-%d-%d", round/3, (c+1)%users), 3))
				if _, unknown := errors.AsType[unknownAccount](err); !unknown {
					try(err)
				}
			})
			all.Go(func() {
				try(b.previous(t.Context(), currency, fmt.Sprintf("u-%d-%d", round/3, c), fmt.Sprintf("u-%d-%d", round/3, (c+2)%users)))
			})
		}
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	var twice int
	if err := b.db.QueryRow(t.Context(), `SELECT count(*) FROM (SELECT FROM accounts GROUP BY split_part(id, E'\t', 1), currency HAVING count(*) > 1) AS t`).Scan(&twice); err != nil || twice != 0 {
		t.Errorf("%d owners have two accounts in a currency, %v", twice, err)
	}
	for id, p := range b.payments() {
		if p.Status != Completed && !strings.HasPrefix(p.Reason, "insufficient balance: ") { // the previous version's account begins empty here
			t.Errorf("order %s: %s", id, p.Reason)
		}
	}
	b.audit()
}

// previous opens, locks and folds the accounts of two users as the previous version does, whose statements these are.
func (b bundle) previous(ctx context.Context, currency string, users ...string) error {
	return pgx.BeginFunc(ctx, b.db, func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue(`INSERT INTO accounts (id, currency, overdraft)
SELECT id, currency, overdraft FROM unnest($1::text[], $2::text[], $3::boolean[]) AS opened (id, currency, overdraft)
WHERE NOT EXISTS (SELECT FROM accounts a WHERE a.id = opened.id COLLATE "C")
ORDER BY id COLLATE "C"
ON CONFLICT DO NOTHING RETURNING id`, users, []string{currency, currency}, []bool{false, false})
		batch.Queue(`SELECT id, currency, balance, overdraft, frozen FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE`, users)
		moved := map[string]int64{}
		batch.Queue(`DELETE FROM pending WHERE account_id = ANY($1) RETURNING account_id, amount`, users).Query(func(rows pgx.Rows) error {
			var id string
			var amount int64
			_, err := pgx.ForEachRow(rows, []any{&id, &amount}, func() error { moved[id] += amount; return nil })
			return err
		})
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		ids, amounts := nonzero(moved)
		_, err := tx.Exec(ctx, moveBalancesSQL, ids, amounts)
		return err
	})
}

// A refund of the previous version goes by the accounts that the charge's entries name, and so does one of this version
// by what it moved.
func TestRefundOfAFurtherAccountByItsEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
	var account, counterparty string
	if err := b.db.QueryRow(t.Context(), `SELECT c.account_id, c.counterparty FROM payments p`+creditedJoin+` WHERE p.order_id = $1`, order(2)).Scan(&account, &counterparty); err != nil {
		t.Fatal(err)
	}
	want(t, []string{"merchant.USD", "u-1\tUSD"}, []string{account, counterparty})
	var currency string
	if err := b.db.QueryRow(t.Context(), `SELECT currency FROM accounts WHERE id = $1`, counterparty).Scan(&currency); err != nil || currency != "USD" {
		t.Errorf("it is in %q, %v", currency, err)
	}
}

// Freezing a user freezes all accounts, those too that are opened later; thawing thaws them.
func TestFrozenUser(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 10))
	b.freeze("u-1", true)
	said := b.told(b.deliver(reserved(t, 3, "u-1", 10), reservedIn(t, "USD", 4, "u-1", 10), reservedIn(t, "CHF", 5, "u-1", 10))...)
	want(t, []string{
		order(3).String() + ": account u-1 is frozen", order(4).String() + ": account u-1 in USD is frozen", order(5).String() + ": account u-1 in CHF is frozen",
	}, said)
	b.freeze("u-1", false)
	b.deliver(reserved(t, 6, "u-1", 10), reservedIn(t, "USD", 7, "u-1", 10), reservedIn(t, "CHF", 8, "u-1", 10))
	for _, n := range []int{6, 7, 8} {
		want(t, Completed, b.payments()[order(n)].Status)
	}
	b.audit()
}

// What the ledger holds of a further account is found where half of the charge is lost, and nobody is charged again.
func TestHalfAChargeOfAFurtherAccount(t *testing.T) {
	t.Parallel()
	for _, half := range []string{"u-1\tUSD", "merchant.USD"} {
		b := setup(t)
		b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
		b.exec(`DELETE FROM entries WHERE account_id = $1 AND kind = 'charge'`, half)
		b.exec(`UPDATE payments SET status = 'FAILED', reason = 'planted' WHERE order_id = $1`, order(2))
		before := b.holdings()
		w := b.post("/payments/"+order(2).String()+"/charge", `{"seen":"FAILED","userId":"u-1","amount":100,"currency":"USD"}`)
		if w.Code != http.StatusOK {
			t.Errorf("without the entry of %q: %d %s", half, w.Code, w.Body)
		}
		want(t, before, b.holdings())
		if w := b.post("/transfers/"+b.payments()[order(2)].ID.String()+"/recount", `{}`); w.Code != http.StatusOK {
			t.Errorf("recount without the entry of %q: %d %s", half, w.Code, w.Body)
		}
		b.audit()
	}
}

// A lost payment of a further account is restored with its user, by whichever half of its charge is there, and paid
// back into that account.
func TestLostPaymentOfAFurtherAccount(t *testing.T) {
	t.Parallel()
	for _, half := range []string{"u-1\tUSD", "merchant.USD", ""} {
		b := setup(t)
		b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
		was := b.payments()[order(2)]
		b.exec(`DELETE FROM entries WHERE account_id = $1 AND kind = 'charge'`, half)
		b.lose(2)
		b.deliver(reservedIn(t, "USD", 2, "u-1", 100))
		want(t, was, b.payments()[order(2)])
		if half != "" {
			continue
		}
		b.deliver(cancelled(t, 2))
		want(t, map[string]int64{"u-1": plenty - 10, "u-1\tUSD": plenty}, b.holdings())
		b.audit()
	}
}

// What is unclear of a further account is decided there.
func TestDecideOfAFurtherAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
	b.exec(`UPDATE payments SET amount = 90 WHERE order_id = $1`, order(2))
	w := b.post("/payments/"+order(2).String()+"/decide", `{"seen":"COMPLETED","paid":true,"userId":"u-1","amount":90,"currency":"USD"}`)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	want(t, map[string]int64{"u-1": plenty - 10, "u-1\tUSD": plenty - 90}, b.holdings())
	b.audit()
}

// Balances are counted anew by the id that an audit names, a further account's too.
func TestRecountOfAFurtherAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "u-1", 10), reservedIn(t, "USD", 2, "u-1", 100))
	b.exec(`UPDATE accounts SET balance = balance + 7 WHERE id = E'u-1\tUSD'`)
	found := strings.Join(b.breaches(), "\n")
	if !strings.HasPrefix(found, "balance-mismatch u-1\tUSD: ") {
		t.Fatalf("found %q", found)
	}
	w := b.post("/accounts/u-1%09USD/recount", `{}`)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"accountId":"u-1","currency":"USD","balance":999999900`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	b.audit()
	for path, status := range map[string]int{"u-1%09CHF": 404, "u-1%09usd": 422, "u-1%09": 422, "%09USD": 404, "u-1%0aUSD": 422} {
		if w := b.post("/accounts/"+path+"/recount", `{}`); w.Code != status {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, status)
		}
	}
}

// Accounts in several currencies, as clients see them: without a currency, the one that was opened first.
func TestCurrenciesOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	api := b.api()
	account := func(currency string, balance int) map[string]any {
		return map[string]any{"accountId": "ada", "currency": currency, "balance": float64(balance), "mayGoNegative": false, "frozen": false}
	}
	deposit := func(n int, currency string, amount int) string {
		return fmt.Sprintf(`{"depositId": %q, "accountId": "ada", "amount": %d, "currency": %q}`, id(n), amount, currency)
	}
	entry := func(transfer, kind string, amount int, other string) map[string]any {
		return map[string]any{"transferId": transfer, "kind": kind, "amount": float64(amount), "counterparty": other}
	}
	first := account("EUR", 5)
	first["others"] = []any{account("CHF", 0), account("USD", 7)}
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		want                     any // nil: whatever
	}{
		{"deposit", "POST", "/deposits", deposit(1, "EUR", 5), 201, nil},
		{"the only one", "GET", "/accounts/ada", "", 200, account("EUR", 5)},
		{"deposit another", "POST", "/deposits", deposit(2, "USD", 9), 201, map[string]any{"depositId": id(2), "accountId": "ada", "amount": 9.0, "currency": "USD"}},
		{"open", "POST", "/accounts", `{"accountId": "ada", "currency": "CHF"}`, 201, account("CHF", 0)},
		{"open again", "POST", "/accounts", `{"accountId": "ada", "currency": "USD"}`, 200, account("USD", 9)},
		{"open for another", "POST", "/accounts", `{"accountId": "bob", "currency": "CHF"}`, 201, nil},
		{"to whom has no dollars", "POST", "/transfers", fmt.Sprintf(`{"transferId": %q, "from": "ada", "to": "bob", "amount": 2, "currency": "USD"}`, id(3)), 422, nil},
		{"open the other's", "POST", "/accounts", `{"accountId": "bob", "currency": "USD"}`, 201, nil},
		{"transfer", "POST", "/transfers", fmt.Sprintf(`{"transferId": %q, "from": "ada", "to": "bob", "amount": 2, "currency": "USD"}`, id(3)), 201,
			map[string]any{"transferId": id(3), "from": "ada", "to": "bob", "amount": 2.0, "currency": "USD"}},
		{"all", "GET", "/accounts/ada", "", 200, first},
		{"one", "GET", "/accounts/ada?currency=USD", "", 200, account("USD", 7)},
		{"none", "GET", "/accounts/ada?currency=XXX", "", 404, nil},
		{"no currency", "GET", "/accounts/ada?currency=usd", "", 422, nil},
		{"entries of the first", "GET", "/accounts/ada/entries", "", 200, map[string]any{"entries": []any{entry(id(1), "deposit", 5, "external.EUR")}}},
		{"entries of another", "GET", "/accounts/ada/entries?currency=USD", "", 200,
			map[string]any{"entries": []any{entry(id(3), "transfer", -2, "bob"), entry(id(2), "deposit", 9, "external.USD")}}},
		{"entries of none", "GET", "/accounts/ada/entries?currency=XXX", "", 404, nil},
	} {
		status, got := request(t, api, step.method, step.path, step.body)
		if others, ok := got["others"].([]any); ok {
			for _, other := range others {
				delete(other.(map[string]any), "createdAt")
			}
		}
		if status != step.status {
			t.Errorf("%s: %d %v, want %d", step.name, status, got, step.status)
		}
		if step.want != nil {
			want(t, step.want, any(got))
		}
	}
	b.audit()
}

// Accounts are found in an index by whoever charges, pays back and reads.
func TestAccountsAreIndexed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, sql := range map[string]string{
		"open": openAccountsSQL, "open further": openFurtherSQL, "lock": lockAccountsSQL, "take": takePendingSQL, "read": readAccountsSQL, "show": accountsOfSQL, "freeze": freezeAccountsSQL,
	} {
		text := b.plan(sql)
		if !strings.Contains(text, map[bool]string{true: "accounts_pkey", false: "accounts_of_owner"}[name == "open"]) || strings.Contains(text, "Seq Scan") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
}
