package payment

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// depositID is the deposit of [bundle.depositOnce].
var depositID = uuid.MustParse("01980d2e-0000-7000-8000-0000000000dd")

// depositOnce puts 70 into u-1's account, once.
func (b bundle) depositOnce() {
	b.Helper()
	_, err := b.bank().transfer(b.Context(), b.db, Transfer{ID: depositID, Kind: Deposit, From: "external.EUR", To: "u-1", Amount: 70, Currency: "EUR"})
	if err != nil {
		b.Fatal(err)
	}
}

// Whatever row is lost, the others tell: it is found, and nothing is counted anew from half of the evidence. What the
// others agree on is put back.
func TestLostRows(t *testing.T) {
	t.Parallel()
	const deposit = "/transfers/01980d2e-0000-7000-8000-0000000000dd/recount"
	payment := "/payments/" + order(1).String() + "/recount"
	type step struct {
		path   string
		status int
	}
	for _, tc := range []struct {
		name, plant string
		found       []string
		steps       []step
		clean       bool // after the steps
	}{
		{
			"an account", `DELETE FROM accounts WHERE id = 'u-1'`,
			[]string{"balance-mismatch u-1: no such account and pending 70, entries 999999970"},
			[]step{{"/accounts/u-1/recount", 409}}, false,
		},
		{
			"the record of a deposit", `DELETE FROM transfers`,
			[]string{"transfer-mismatch " + depositID.String() + ": no record, entries moved 70 as a deposit from external.EUR to u-1"},
			[]step{{deposit, 200}, {deposit, 200}}, true,
		},
		{
			"the entries of a deposit", `DELETE FROM entries WHERE kind = 'deposit'`,
			[]string{
				"balance-mismatch external.EUR: balance -1000000070 and pending 0, entries -1000000000", "balance-mismatch u-1: balance 999999900 and pending 70, entries 999999900",
				"transfer-mismatch " + depositID.String() + ": deposit of 70 EUR from external.EUR to u-1, entries moved 0",
			},
			[]step{{"/accounts/u-1/recount", 409}, {"/accounts/external.EUR/recount", 409}, {deposit, 200}, {deposit, 200}, {"/accounts/u-1/recount", 200}}, true,
		},
		{
			"the entries of a deposit, which nobody holds", `WITH gone AS (DELETE FROM entries WHERE kind = 'deposit' RETURNING account_id, amount)
				INSERT INTO pending (account_id, amount) SELECT account_id, -amount FROM gone`,
			[]string{"transfer-mismatch " + depositID.String() + ": deposit of 70 EUR from external.EUR to u-1, entries moved 0"},
			[]step{{deposit, 409}, {"/accounts/u-1/recount", 409}}, false,
		},
		{
			"the record of a deposit is another", `UPDATE transfers SET amount = 71`,
			[]string{"transfer-mismatch " + depositID.String() + ": deposit of 71 EUR from external.EUR to u-1, entries moved 70 as a deposit from external.EUR to u-1"},
			[]step{{deposit, 409}}, false,
		},
		{
			"the entries of a charge", `DELETE FROM entries WHERE kind = 'charge'`,
			[]string{
				"balance-mismatch merchant.EUR: balance 100 and pending 0, entries 0", "balance-mismatch u-1: balance 999999900 and pending 70, entries 1000000070",
				"payment-mismatch " + order(1).String() + ": COMPLETED of 100, charged 0, paid back 0",
			},
			[]step{{payment, 200}, {payment, 200}}, true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.exec(`UPDATE accounts a SET balance = balance + p.amount FROM (SELECT account_id, sum(amount) AS amount FROM pending GROUP BY 1) AS p WHERE p.account_id = a.id`)
			b.exec(`DELETE FROM pending`)
			b.depositOnce()
			b.exec(`UPDATE accounts a SET balance = balance + p.amount FROM pending p WHERE p.account_id = a.id AND a.id = 'external.EUR'`)
			b.exec(`DELETE FROM pending WHERE account_id = 'external.EUR'`)
			b.audit()
			held := [3]int64{b.sum("u-1"), b.sum("merchant.EUR"), b.sum("external.EUR")}
			b.exec(tc.plant)
			if diff := cmp.Diff(tc.found, b.breaches()); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			for _, s := range tc.steps {
				before := b.everything()
				if w := b.post(s.path, `{}`); w.Code != s.status {
					t.Errorf("%s: %d %s, want %d", s.path, w.Code, w.Body, s.status)
				}
				if after := b.everything(); s.status != http.StatusOK && before != after {
					t.Errorf("%s was refused, and changed (-before +after):\n%s", s.path, cmp.Diff(before, after))
				}
			}
			if !tc.clean {
				return
			}
			b.audit()
			if is := [3]int64{b.sum("u-1"), b.sum("merchant.EUR"), b.sum("external.EUR")}; is != held {
				t.Errorf("accounts hold %v, and held %v", is, held)
			}
			if p := b.payments()[order(1)]; p.Status != Completed {
				t.Errorf("the payment is %s", p.Status)
			}
			b.depositOnce() // sent again, it is not made again
			if is := b.sum("u-1"); is != held[0] {
				t.Errorf("after the deposit was sent again the account holds %d, and held %d", is, held[0])
			}
		})
	}
}

// An account whose row is lost is opened again by a person, and then counted anew.
func TestLostAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	held := b.sum("u-1")
	b.exec(`DELETE FROM accounts WHERE id = 'u-1'`)
	opened, err := bank{merchant: "merchant"}.openAccount(t.Context(), b.db, accountKey{"u-1", "EUR"})
	if err != nil || !opened {
		t.Fatalf("opened %t, %v", opened, err)
	}
	if w := b.post("/accounts/u-1/recount", `{}`); w.Code != http.StatusOK || b.sum("u-1") != held {
		t.Errorf("%d %s; the account holds %d, and held %d", w.Code, w.Body, b.sum("u-1"), held)
	}
	b.audit()
}

// The record of a transfer between further accounts names their owners and its own currency, also where it is put back;
// and one that says just that is right.
func TestLostRecordBetweenFurtherAccounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deposit("u-1", 10)
	b.deposit("u-2", 10)
	for _, one := range []Transfer{
		{ID: uuid.New(), Kind: Deposit, From: "external.USD", To: "u-1", Amount: 70, Currency: "USD"},
		{ID: uuid.New(), Kind: Deposit, From: "external.USD", To: "u-2", Amount: 70, Currency: "USD"},
		{ID: uuid.New(), Kind: Move, From: "u-1", To: "u-2", Amount: 7, Currency: "USD"},
	} {
		if refusal := b.move(one); refusal != "" {
			t.Fatalf("%s: %s", one.Kind, refusal)
		}
		record := func() (r [4]string) {
			t.Helper()
			err := b.db.QueryRow(t.Context(), `SELECT kind, from_account, to_account, amount || ' ' || currency FROM transfers WHERE id = $1`, one.ID).Scan(&r[0], &r[1], &r[2], &r[3])
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		was := record()
		for _, damage := range []string{`SELECT $1::uuid`, `DELETE FROM transfers WHERE id = $1`} {
			b.exec(damage, one.ID)
			if w := b.post("/transfers/"+one.ID.String()+"/recount", `{}`); w.Code != http.StatusOK {
				t.Errorf("%s after %s: %d %s", one.Kind, damage, w.Code, w.Body)
			}
			want(t, was, record())
			b.clean()
		}
	}
}
