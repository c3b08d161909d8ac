package payment

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// commands is the API of repairs.
func (b bundle) commands() http.Handler {
	server := web.New(web.Config{Service: "payment"})
	(&repairer{cashier: newCashier(b.Config), db: b.db}).register(server.API)
	return server
}

// post sends a command.
func (b bundle) post(path, body string) *httptest.ResponseRecorder {
	b.Helper()
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	b.commands().ServeHTTP(w, r)
	return w
}

func (b bundle) charge(n int, seen, user string, amount int) *httptest.ResponseRecorder {
	b.Helper()
	return b.post("/payments/"+order(n).String()+"/charge", fmt.Sprintf(`{"seen":%q,"userId":%q,"amount":%d,"currency":"EUR"}`, seen, user, amount))
}

func (b bundle) refund(n int, seen string) *httptest.ResponseRecorder {
	b.Helper()
	return b.post("/payments/"+order(n).String()+"/refund", fmt.Sprintf(`{"seen":%q}`, seen))
}

// bring makes the n-th order's payment, of 100 by user u-n, what a saga of an earlier time made it.
func (b bundle) bring(n int, status string) {
	b.Helper()
	user := fmt.Sprintf("u-%d", n)
	switch status {
	case "FAILED":
		b.deliver(reserved(b.T, n, "mallory", 100))
	case "COMPLETED":
		b.deliver(reserved(b.T, n, user, 100))
	case "REFUNDED":
		b.deliver(reserved(b.T, n, user, 100))
		b.deliver(cancelled(b.T, n))
	case "REFUNDING":
		b.deliver(reserved(b.T, n, user, 100))
		b.freeze("merchant.EUR", true)
		b.deliver(cancelled(b.T, n))
		b.freeze("merchant.EUR", false)
	}
}

// Each command from each status: what comes of it, what moves, and who is told.
func TestRepairCommands(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := 0
	for _, tc := range []struct {
		command, was, is string
		status           int
		moved            int64 // by the user's account
		told             []string
	}{
		{"charge", "NONE", "COMPLETED", 200, plenty - 100, []string{"payment.completed"}}, // the account opens
		{"charge", "FAILED", "COMPLETED", 200, plenty - 100, []string{"payment.completed"}},
		{"charge", "REFUNDED", "COMPLETED", 200, -100, []string{"payment.completed"}},
		{"charge", "COMPLETED", "COMPLETED", 200, 0, nil},
		{"charge", "REFUNDING", "REFUNDING", 200, 0, nil},
		{"refund", "NONE", "", 404, 0, nil},
		{"refund", "FAILED", "FAILED", 200, 0, nil},
		{"refund", "REFUNDED", "REFUNDED", 200, 0, nil},
		{"refund", "COMPLETED", "REFUNDED", 200, 100, []string{"payment.refunded"}},
		{"refund", "REFUNDING", "REFUNDING", 200, 0, nil},
	} {
		n++
		t.Run(tc.command+" "+tc.was, func(t *testing.T) {
			b.T = t
			b.bring(n, tc.was)
			user := fmt.Sprintf("u-%d", n)
			send := func(seen string) *httptest.ResponseRecorder {
				if tc.command == "charge" {
					return b.charge(n, seen, user, 100)
				}
				return b.refund(n, seen)
			}
			balance := func() int64 {
				a, _, err := findAccount(t.Context(), b.db, user, "EUR")
				if err != nil {
					t.Fatal(err)
				}
				return a.Balance
			}
			before := balance()
			if tc.told != nil {
				other := map[bool]string{true: "FAILED", false: "NONE"}[tc.was == "NONE"]
				if w := send(other); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), facts.TypeChanged) || balance() != before {
					t.Errorf("seen as %s: %d %s", other, w.Code, w.Body)
				}
			}
			w := send(tc.was)
			if w.Code != tc.status || tc.is != "" && !strings.Contains(w.Body.String(), `"status":"`+tc.is+`"`) {
				t.Fatalf("%d %s, want %d and %s", w.Code, w.Body, tc.status, tc.is)
			}
			if got := balance() - before; got != tc.moved {
				t.Errorf("the user's account moved by %d, want %d", got, tc.moved)
			}
			var told []string
			for _, r := range sagatest.Drain(t, b.db) {
				told = append(told, r.Topic)
			}
			if diff := cmp.Diff(tc.told, told); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			after := balance()
			send(tc.is)
			if got := balance(); got != after {
				t.Errorf("sent again it moved %d", got-after)
			}
			if got, err := source.Get(t.Context(), b.db, order(n)); err != nil || tc.is != "" && (len(got) != 1 || got[0].Status != tc.is || got[0].Member != (tc.is == "COMPLETED" || tc.is == "REFUNDING")) {
				t.Errorf("held: %+v, %v", got, err)
			}
			sagatest.Drain(t, b.db)
			b.audit()
		})
	}
}

// Payment tells again that an order is paid, if it is, for one that has not heard it; nothing moves, and of one that is
// not nothing is told.
func TestChargeIsToldAgain(t *testing.T) {
	t.Parallel()
	for is, want := range map[string]int{"COMPLETED": 1, "FAILED": 0, "REFUNDED": 0, "REFUNDING": 0, "NONE": 0} {
		b := setup(t)
		b.bring(1, is)
		sagatest.Drain(t, b.db)
		before := b.everything()
		b.post("/payments/"+order(1).String()+"/charge", `{"seen":"COMPLETED","userId":"u-1","amount":100,"currency":"EUR","tell":true}`)
		told := b.told(sagatest.Drain(t, b.db)...)
		if len(told) != want || want == 1 && told[0] != order(1).String()+": paid 100 with "+b.payments()[order(1)].ID.String() {
			t.Errorf("%s: told %v", is, told)
		}
		if diff := cmp.Diff(before, b.everything()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", is, diff)
		}
	}
}

// A charge is refused for the reasons of any charge, and leaves no trace.
func TestChargeAgainRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 50
	b.deliver(reserved(t, 9, "frozen", 1), reserved(t, 8, "mallory", 7))
	b.freeze("frozen", true)
	for typ, send := range map[string]func() *httptest.ResponseRecorder{
		"insufficient-balance": func() *httptest.ResponseRecorder { return b.charge(1, "NONE", "poor", 51) },
		"account-frozen":       func() *httptest.ResponseRecorder { return b.charge(2, "NONE", "frozen", 1) },
		"payment-declined":     func() *httptest.ResponseRecorder { return b.charge(8, "FAILED", "mallory", 7) },
	} {
		before := b.everything()
		if w := send(); w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), web.TypePrefix+typ) {
			t.Errorf("%s: %d %s", typ, w.Code, w.Body)
		}
		if diff := cmp.Diff(before, b.everything()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", typ, diff)
		}
	}
	b.audit()
}

// An order that was paid back, and was charged for again since, is paid back again: the answer under its key is that of
// an earlier time.
func TestChargedAgainIsPaidBackAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "REFUNDED")
	b.charge(1, "REFUNDED", "u-1", 100)
	sagatest.Drain(t, b.db)
	if got := b.balance("u-1"); got != plenty-100 {
		t.Errorf("charged again, the user has %d", got)
	}
	b.deliver(cancelled(t, 1))
	if got, p := b.balance("u-1"), b.payments()[order(1)]; got != plenty || p.Status != Refunded {
		t.Errorf("paid back again, the user has %d, the payment is %s", got, p.Status)
	}
	b.audit()
}

// What the ledger has already is not moved again, and what it has not is not paid back, whatever the payment's row
// says; a person is asked where it says neither.
func TestLedgerDecides(t *testing.T) {
	t.Parallel()
	charge := func(b bundle) *httptest.ResponseRecorder {
		return b.charge(1, string(b.payments()[order(1)].Status), "u-1", 100)
	}
	refund := func(b bundle) *httptest.ResponseRecorder { return b.refund(1, string(b.payments()[order(1)].Status)) }
	for _, tc := range []struct {
		name, was, plant string
		send             func(bundle) *httptest.ResponseRecorder
		status           int
		is               Status
		told             string
	}{
		{"a refund", "REFUNDED", `UPDATE payments SET status = 'COMPLETED'`, refund, 200, Refunded, "paid back 100"},
		{"no charge", "FAILED", `UPDATE payments SET status = 'COMPLETED', reason = ''`, refund, 200, Failed, "no charge in the ledger"},
		{"a charge", "COMPLETED", `UPDATE payments SET status = 'REFUNDED'`, charge, 200, Completed, "paid 100"},
		{
			"half a charge", "COMPLETED", `WITH lost AS (DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'charge') UPDATE payments SET status = 'FAILED', reason = 'planted'`,
			charge, 200, Completed, "paid 100",
		},
		{
			"half a refund", "REFUNDED", `WITH lost AS (DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'refund') UPDATE payments SET status = 'COMPLETED'`,
			refund, 200, Refunded, "paid back 100",
		},
		{"another charge", "COMPLETED", `UPDATE payments SET status = 'FAILED', reason = 'planted', amount = 90`, charge, 409, Failed, ""},
		{"another charge", "COMPLETED", `UPDATE payments SET amount = 90`, refund, 409, Completed, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.bring(1, tc.was)
			b.exec(`INSERT INTO accounts (id, currency) VALUES ('u-1', 'EUR') ON CONFLICT DO NOTHING`)
			b.exec(tc.plant)
			user, merchant, before := b.balance("u-1"), b.sum("merchant.%"), b.everything()
			w := tc.send(b)
			if p := b.payments()[order(1)]; w.Code != tc.status || p.Status != tc.is {
				t.Errorf("%d %s, and it is %s", w.Code, w.Body, p.Status)
			}
			want(t, []int64{user, merchant}, []int64{b.balance("u-1"), b.sum("merchant.%")})
			if said := fmt.Sprint(b.told(sagatest.Drain(t, b.db)...)); !strings.Contains(said, tc.told) || (tc.told == "") != (said == "[]") {
				t.Errorf("told %s, want %q", said, tc.told)
			}
			if after := b.everything(); tc.status == http.StatusConflict && (before != after || !strings.Contains(w.Body.String(), web.TypePrefix+unclear)) {
				t.Errorf("%s (-before +after):\n%s", w.Body, cmp.Diff(before, after))
			}
		})
	}
}

// What a cancellation was answered is forgotten when the payment turns out to be another, so that the next one pays
// back.
func TestRecountedIsPaidBack(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.exec(`UPDATE payments SET status = 'FAILED', reason = 'planted'`)
	want(t, []string{order(1).String() + ": planted"}, b.told(b.deliver(cancelled(t, 1))...))
	b.post("/payments/"+order(1).String()+"/recount", `{}`)
	want(t, []string{order(1).String() + ": paid back 100 of " + b.payments()[order(1)].ID.String()}, b.told(b.deliver(cancelled(t, 1))...))
	want(t, int64(plenty), b.balance("u-1"))
	b.audit()
}

// A refund that cannot be made waits, and is made by whom it is always made.
func TestRefundWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.freeze("merchant.EUR", true)
	w := b.refund(1, "COMPLETED")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"status":"REFUNDING"`) || !strings.Contains(w.Body.String(), "merchant.EUR is frozen") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff([]string{order(1).String() + ": not paid back: account merchant.EUR is frozen"}, b.told(sagatest.Drain(t, b.db)...)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	b.freeze("merchant.EUR", false)
	if _, err := b.db.Exec(t.Context(), `UPDATE refunds SET next_try_at = now() - interval '1 minute'`); err != nil {
		t.Fatal(err)
	}
	if more, err := (&retrier{cashier: newCashier(b.Config), db: b.db}).next(t.Context()); !more || err != nil {
		t.Fatal(more, err)
	}
	if diff := cmp.Diff([]string{order(1).String() + ": paid back 100 of " + b.payments()[order(1)].ID.String()}, b.told(sagatest.Drain(t, b.db)...)); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	b.audit()
}
