package payment

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// lose deletes the n-th order's payment, and its refund, as a careless hand or an older copy of the table would. The
// ledger stays.
func (b bundle) lose(n int) {
	b.Helper()
	b.exec(`DELETE FROM refunds WHERE order_id = $1`, order(n))
	b.exec(`DELETE FROM payments WHERE order_id = $1`, order(n))
}

// Whoever comes to an order whose payment's row is lost, nobody is charged or paid back twice, the audit names it, and
// the row is restored.
func TestLostPayment(t *testing.T) {
	t.Parallel()
	paid, back := order(1).String()+": paid 100", order(1).String()+": paid back 100"
	for _, tc := range []struct {
		name, was string
		come      func(b bundle) (int, []broker.Record)
		is        Status
		told      string
	}{
		{"the saga charges", "COMPLETED", func(b bundle) (int, []broker.Record) { return 200, b.deliver(reserved(b.T, 1, "u-1", 100)) }, Completed, paid},
		{"the saga charges what was paid back", "REFUNDED", func(b bundle) (int, []broker.Record) { return 200, b.deliver(reserved(b.T, 1, "u-1", 100)) }, Refunded, paid},
		{"the saga undoes", "COMPLETED", func(b bundle) (int, []broker.Record) { return 200, b.deliver(cancelled(b.T, 1)) }, Refunded, back},
		{"a command charges", "COMPLETED", func(b bundle) (int, []broker.Record) {
			return b.charge(1, "NONE", "u-1", 100).Code, sagatest.Drain(b.T, b.db)
		}, Completed, ""},
		{"a command charges what was paid back", "REFUNDED", func(b bundle) (int, []broker.Record) {
			return b.charge(1, "NONE", "u-1", 100).Code, sagatest.Drain(b.T, b.db)
		}, Refunded, ""},
		{"a command pays back", "COMPLETED", func(b bundle) (int, []broker.Record) { return b.refund(1, "COMPLETED").Code, sagatest.Drain(b.T, b.db) }, Refunded, back},
		{"a command recounts", "COMPLETED", func(b bundle) (int, []broker.Record) {
			return b.post("/payments/"+order(1).String()+"/recount", `{}`).Code, sagatest.Drain(b.T, b.db)
		}, Completed, ""},
		{"a command recounts what was paid back", "REFUNDED", func(b bundle) (int, []broker.Record) {
			return b.post("/payments/"+order(1).String()+"/recount", `{}`).Code, sagatest.Drain(b.T, b.db)
		}, Refunded, ""},
		{"half of the charge is lost too", "COMPLETED", func(b bundle) (int, []broker.Record) {
			b.exec(`DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'charge'`)
			told := b.deliver(reserved(b.T, 1, "u-1", 100))
			b.exec(`INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
				SELECT counterparty, transfer_id, kind, -amount, account_id, order_id FROM entries WHERE kind = 'charge'`)
			return 200, told
		}, Completed, paid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, tc.was)
			sagatest.Drain(t, b.db)
			before := b.payments()[order(1)]
			user, merchant := b.balance("u-1"), b.sum("merchant.%")
			b.lose(1)
			if found := strings.Join(b.breaches(), "\n"); !strings.HasPrefix(found, "charge-without-payment "+order(1).String()+": no payment, charged beside it ") {
				t.Errorf("the audit finds %q", found)
			}
			status, events := tc.come(b)
			p := b.payments()[order(1)]
			if status != http.StatusOK && (status != http.StatusConflict || tc.told != "" || tc.is != Refunded) || p.Status != tc.is {
				t.Errorf("%d, the payment is %q", status, p.Status)
			}
			if tc.is == Refunded && tc.was == "COMPLETED" {
				user, merchant = user+100, merchant-100
			}
			want(t, []int64{user, merchant}, []int64{b.balance("u-1"), b.sum("merchant.%")})
			before.Status = tc.is
			if diff := cmp.Diff(before, p); diff != "" {
				t.Errorf("restored (-lost +restored):\n%s", diff)
			}
			told := strings.Join(b.told(events...), "\n")
			if !strings.HasPrefix(told, tc.told) || (tc.told == "") != (told == "") {
				t.Errorf("told %q, want %q", told, tc.told)
			}
			b.audit()
		})
	}
}

// What the ledger does not say clearly is left to a person: nobody is charged, paid back or told anything, and each who
// comes says so.
func TestLostPaymentThatIsUnclear(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]string{
		"charged twice": `INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
			SELECT account_id, '01980d2e-0000-7000-8000-00000000beef', kind, amount, counterparty, order_id FROM entries WHERE kind = 'charge'`,
		"nobody knows who paid": `UPDATE entries SET kind = 'opening' WHERE kind = 'charge'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.exec(plant)
			b.lose(1)
			if found := b.breaches(); len(found) == 0 || !strings.HasPrefix(found[len(found)-1], "charge-without-payment") {
				t.Errorf("the audit finds %v", found)
			}
			before := b.everything()
			for _, w := range []*http.Response{
				b.charge(1, "NONE", "u-1", 100).Result(), b.refund(1, "NONE").Result(), b.post("/payments/"+order(1).String()+"/recount", `{}`).Result(),
			} {
				if w.StatusCode != http.StatusConflict {
					t.Errorf("a command is answered %s", w.Status)
				}
			}
			for _, r := range b.deliver(reserved(t, 1, "u-1", 100), cancelled(t, 1)) {
				if line := told(t, r); !strings.Contains(r.Topic, ".dlq") || !strings.Contains(line, "only a person can say") {
					t.Errorf("told %s", line)
				}
			}
			if diff := cmp.Diff(before, b.everything()); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
		})
	}
}

// A payment that is there does not hide what was charged for its order beside it.
func TestChargedBesideThePayment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.exec(`UPDATE payments SET id = $1`, uuid.Max)
	found := strings.Join(b.breaches(), "\n")
	if !strings.Contains(found, "charge-without-payment "+order(1).String()+": payment COMPLETED, charged beside it 100") {
		t.Errorf("the audit finds %q", found)
	}
	before := b.everything()
	for _, w := range []*http.Response{b.charge(1, "COMPLETED", "u-1", 100).Result(), b.refund(1, "COMPLETED").Result(), b.post("/payments/"+order(1).String()+"/recount", `{}`).Result()} {
		if w.StatusCode == http.StatusOK && before != b.everything() {
			t.Errorf("%s, and changed\n%s", w.Status, cmp.Diff(before, b.everything()))
		}
	}
}

// A refund takes the charge's way back: from the account that was credited, though the merchant is called otherwise by
// now, and to the one that was debited, whatever the payment's row says.
func TestRefundTakesTheChargesWayBack(t *testing.T) {
	t.Parallel()
	for name, pay := range map[string]func(bundle){
		"at once": func(b bundle) { b.deliver(cancelled(b.T, 1)) },
		"later": func(b bundle) {
			b.freeze("merchant.EUR", true)
			b.deliver(cancelled(b.T, 1))
			b.freeze("merchant.EUR", false)
			b.exec(`UPDATE refunds SET next_try_at = now() - interval '1 minute'`)
			if _, err := (&retrier{cashier: newCashier(b.Config), db: b.db}).next(b.Context()); err != nil {
				b.Fatal(err)
			}
		},
		"by a command":           func(b bundle) { b.refund(1, "COMPLETED") },
		"after its row was lost": func(b bundle) { b.lose(1); b.deliver(cancelled(b.T, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, "COMPLETED")
			b.exec(`UPDATE payments SET user_id = 'eve'`)
			b.Merchant = "shop"
			pay(b)
			want(t, []int64{plenty, 0, 0}, []int64{b.balance("u-1"), b.sum("eve"), b.sum("merchant.EUR")})
			want(t, Refunded, b.payments()[order(1)].Status)
		})
	}
}
