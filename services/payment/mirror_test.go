package payment

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An entry that tells of something else than its other half is named, though everything adds up, and no balance is
// counted anew by it: that would be another user's money.
func TestEntriesThatAreNoMirror(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]string{
		"another account":      `UPDATE entries SET account_id = 'u-2' WHERE account_id = 'u-1' AND kind = 'charge'`,
		"another counterparty": `UPDATE entries SET counterparty = 'u-2' WHERE account_id = 'u-1' AND kind = 'charge'`,
		"another kind":         `UPDATE entries SET kind = 'refund' WHERE account_id = 'merchant.EUR' AND order_id = '` + order(1).String() + `'`,
		"a correction":         `UPDATE entries SET kind = 'correction' WHERE account_id = 'merchant.EUR' AND order_id = '` + order(1).String() + `'`,
		"another order":        `UPDATE entries SET order_id = '` + order(2).String() + `' WHERE account_id = 'u-1' AND kind = 'charge'`,
		"no order":             `UPDATE entries SET order_id = NULL WHERE account_id = 'u-1' AND kind = 'charge'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.bring(2, "COMPLETED")
			b.audit()
			b.exec(plant)
			transfer := b.payments()[order(1)].ID.String()
			if found := b.breaches(); !slices.ContainsFunc(found, func(one string) bool {
				return strings.HasPrefix(one, "entries-mismatch "+transfer) && strings.Contains(one, "u-1") && strings.Contains(one, "merchant.EUR")
			}) {
				t.Errorf("the audit finds %v", found)
			}
			before := b.everything()
			for _, account := range []string{"u-1", "merchant.EUR"} {
				if w := b.post("/accounts/"+account+"/recount", `{}`); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), transfer) {
					t.Errorf("recount %s: %d %s", account, w.Code, w.Body)
				}
			}
			if w := b.post("/payments/"+order(1).String()+"/recount", `{}`); w.Code == http.StatusOK && name == "a correction" {
				t.Errorf("recount the payment: %s", w.Body)
			}
			if diff := cmp.Diff(before, b.everything()); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
		})
	}
}

// What was charged for one order is not paid back for another, to which its payment's row was copied or moved.
func TestPaymentOfAnotherOrder(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]string{
		"copied": `INSERT INTO payments SELECT $2, id, user_id, amount, currency, status, reason, created_at FROM payments WHERE order_id = $1`,
		"moved":  `UPDATE payments SET order_id = $2 WHERE order_id = $1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			user := b.balance("u-1")
			b.exec(plant, order(1), order(2))
			b.post("/payments/"+order(1).String()+"/recount", `{}`)
			for _, w := range []*http.Response{b.refund(2, "COMPLETED").Result(), b.post("/payments/"+order(2).String()+"/recount", `{}`).Result()} {
				if w.StatusCode != http.StatusConflict {
					t.Errorf("a command about the other order: %s", w.Status)
				}
			}
			want(t, []int64{user}, []int64{b.balance("u-1")})
			if p := b.payments()[order(1)]; p.Status != Completed {
				t.Errorf("the order's own payment is %q", p.Status)
			}
			// A person decides that the other order is not paid, and everything is as it was.
			w := b.post("/payments/"+order(2).String()+"/decide", `{"seen":"COMPLETED","paid":false,"userId":"u-1","amount":100,"currency":"EUR"}`)
			if w.Code != http.StatusOK || b.balance("u-1") != user {
				t.Errorf("decided: %d %s, and the user has %d, had %d", w.Code, w.Body, b.balance("u-1"), user)
			}
			b.audit()
		})
	}
}

// A payment is not restored from a charge of which one half is another order's.
func TestHalfOfAnotherOrderRestoresNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.exec(`UPDATE entries SET order_id = $1 WHERE account_id = 'u-1' AND kind = 'charge'`, order(2))
	if w := b.post("/payments/"+order(2).String()+"/recount", `{}`); w.Code != http.StatusConflict || len(b.payments()) != 1 {
		t.Errorf("%d %s, payments %v", w.Code, w.Body, b.payments())
	}
}

// Accounts are what their names and their entries say.
func TestAccountsThatAreAnother(t *testing.T) {
	t.Parallel()
	for plant, account := range map[string]string{
		`UPDATE accounts SET currency = 'USD' WHERE id = 'u-1'`:                        "u-1",
		`UPDATE accounts SET currency = 'USD' WHERE id = 'merchant.EUR'`:               "merchant.EUR",
		`UPDATE accounts SET overdraft = true WHERE id = 'u-1'`:                        "u-1",
		`UPDATE accounts SET overdraft = false, balance = 0 WHERE id = 'external.EUR'`: "external.EUR",
	} {
		t.Run(plant, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.audit()
			b.exec(plant)
			if found := b.breaches(); !slices.ContainsFunc(found, func(one string) bool { return strings.HasPrefix(one, "account-mismatch "+account+": ") }) {
				t.Errorf("the audit finds %v", found)
			}
		})
	}
}

// What the checker advises where another user has paid: who paid gets it back, and whose order it is pays.
func TestAnotherUserHasPaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(2, "COMPLETED") // opens the account of u-2
	u2 := b.balance("u-2")
	b.bring(1, "COMPLETED")
	u1 := b.balance("u-1")
	if w := b.post("/payments/"+order(1).String()+"/refund", `{"seen":"COMPLETED","orphan":true}`); w.Code != http.StatusOK {
		t.Fatalf("refund: %d %s", w.Code, w.Body)
	}
	if w := b.charge(1, "REFUNDED", "u-2", 100); w.Code != http.StatusOK {
		t.Fatalf("charge: %d %s", w.Code, w.Body)
	}
	want(t, []int64{u1 + 100, u2 - 100}, []int64{b.balance("u-1"), b.balance("u-2")})
	if p := b.payments()[order(1)]; p.UserID != "u-2" || p.Status != Completed {
		t.Errorf("the payment is %+v", p)
	}
	b.audit()
}
