package payment

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// What is planted is found by the rule that it breaks, and put right by the entries.
func TestRecounts(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, was, plant string
		kinds            []string // what is found
		path             func(b bundle) string
		status           int
		is               string // the payment's status then
	}{
		{
			"called failed", "COMPLETED", `UPDATE payments SET status = 'FAILED', reason = 'planted'`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "COMPLETED",
		},
		{
			"called completed", "FAILED", `UPDATE payments SET status = 'COMPLETED', reason = ''`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "FAILED",
		},
		{
			"called completed, was paid back", "REFUNDED", `UPDATE payments SET status = 'COMPLETED'`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "REFUNDED",
		},
		{
			"called paid back", "COMPLETED", `UPDATE payments SET status = 'REFUNDED'`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "COMPLETED",
		},
		{
			"its refund was done, and is called waiting", "REFUNDED", `UPDATE refunds SET state = 'WAITING', done_at = NULL, next_try_at = now() - interval '1 minute'`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "REFUNDED",
		},
		{
			"its refund was not done, and is called done", "REFUNDING", `UPDATE refunds SET state = 'DONE', done_at = now(), next_try_at = NULL`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 200, "COMPLETED",
		},
		{
			"another amount", "COMPLETED", `UPDATE payments SET amount = 90`, []string{"payment-mismatch"},
			func(bundle) string { return "/payments/" + order(1).String() }, 409, "COMPLETED",
		},
		{
			"half of a charge is lost", "COMPLETED", `DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'charge'`, []string{"balance-mismatch", "transfer-unbalanced"},
			func(b bundle) string { return "/transfers/" + b.payments()[order(1)].ID.String() }, 200, "COMPLETED",
		},
		{
			"an entry that nothing moved", "COMPLETED", `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty) VALUES ('u-1', '01980d2e-0000-7000-8000-0000000000ff', 'transfer', 5, 'merchant.EUR')`,
			[]string{"balance-mismatch", "transfer-unbalanced"},
			func(bundle) string { return "/transfers/01980d2e-0000-7000-8000-0000000000ff" }, 200, "COMPLETED",
		},
		{
			"an entry of a charge that nothing moved", "FAILED", `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
				SELECT user_id, id, 'charge', -amount, 'merchant.EUR' FROM payments`,
			[]string{"balance-mismatch", "payment-mismatch", "transfer-unbalanced"},
			func(b bundle) string { return "/transfers/" + b.payments()[order(1)].ID.String() }, 200, "FAILED",
		},
		{
			"an entry that only its account knows", "COMPLETED", `WITH e AS (INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty)
				VALUES ('u-1', '01980d2e-0000-7000-8000-0000000000ff', 'transfer', 5, 'merchant.EUR')) INSERT INTO pending (account_id, amount) VALUES ('u-1', 5)`,
			[]string{"transfer-unbalanced"}, func(bundle) string { return "/transfers/01980d2e-0000-7000-8000-0000000000ff" }, 409, "COMPLETED",
		},
		{
			"a balance changed by hand", "COMPLETED", `UPDATE accounts SET balance = balance + 7 WHERE id = 'u-1'`, []string{"balance-mismatch"},
			func(bundle) string { return "/accounts/u-1" }, 200, "COMPLETED",
		},
		{
			"the money is not there", "COMPLETED", `DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'opening'`, []string{"balance-mismatch", "transfer-unbalanced"},
			func(bundle) string { return "/accounts/u-1" }, 409, "COMPLETED",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, tc.was)
			b.audit()
			b.exec(tc.plant)
			found := b.breaches()
			var kinds []string
			for _, one := range found {
				kind, _, _ := strings.Cut(one, " ")
				kinds = append(kinds, kind)
			}
			slices.Sort(kinds)
			if diff := cmp.Diff(tc.kinds, kinds); diff != "" {
				t.Errorf("found (-want +got):\n%s\n%v", diff, found)
			}
			before := b.everything()
			for times := range 2 {
				if w := b.post(tc.path(b)+"/recount", `{}`); w.Code != tc.status {
					t.Errorf("recount: %d %s, want %d", w.Code, w.Body, tc.status)
				}
				after := b.everything()
				if changed := before != after; changed != (tc.status == http.StatusOK && times == 0) {
					t.Errorf("changed %t, sent %d times before, and answered %d (-before +after):\n%s", changed, times, tc.status, cmp.Diff(before, after))
				}
				before = after
			}
			if p := b.payments()[order(1)]; string(p.Status) != tc.is {
				t.Errorf("the payment is %s, want %s", p.Status, tc.is)
			}
			if tc.status == 200 {
				b.audit()
			}
		})
	}
}

func TestRecountOfNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, path := range []string{"/payments/" + order(1).String(), "/accounts/nobody", "/transfers/" + uuid.NewString()} {
		if w := b.post(path+"/recount", `{}`); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
