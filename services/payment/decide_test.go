package payment

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// moveAgain does once more what entries of a kind say, with its balances, as another transfer.
const moveAgain = `WITH entry AS (INSERT INTO entries (account_id, transfer_id, kind, amount, counterparty, order_id)
    SELECT account_id, '01980d2e-0000-7000-8000-00000000beef', kind, amount, counterparty, order_id FROM entries WHERE kind = '%s' RETURNING account_id, amount)
INSERT INTO pending (account_id, amount) SELECT account_id, amount FROM entry`

// Whatever is unclear about an order's money, a person's word ends it: it is paid once, or not at all, and the audit
// finds nothing more.
func TestDecide(t *testing.T) {
	t.Parallel()
	lost := ` DELETE FROM refunds; DELETE FROM payments;`
	for name, tc := range map[string]struct{ was, plant, seen string }{
		"another amount":                {"COMPLETED", `UPDATE payments SET amount = 90`, "COMPLETED"},
		"charged twice":                 {"COMPLETED", fmt.Sprintf(moveAgain, "charge"), "COMPLETED"},
		"charged twice and lost":        {"COMPLETED", fmt.Sprintf(moveAgain, "charge") + ";" + lost, "NONE"},
		"paid back twice":               {"REFUNDED", fmt.Sprintf(moveAgain, "refund"), "REFUNDED"},
		"paid back twice and lost":      {"REFUNDED", fmt.Sprintf(moveAgain, "refund") + ";" + lost, "NONE"},
		"another payment than was made": {"COMPLETED", `UPDATE payments SET id = order_id, status = 'FAILED', reason = 'planted'`, "FAILED"},
	} {
		for _, paid := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, paid %t", name, paid), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				b.bring(1, tc.was)
				for sql := range strings.SplitSeq(tc.plant, ";") {
					b.exec(sql)
				}
				sagatest.Drain(t, b.db)
				path := "/payments/" + order(1).String() + "/decide"
				body := func(seen string) string {
					return fmt.Sprintf(`{"seen":%q,"paid":%t,"userId":"u-1","amount":100,"currency":"EUR"}`, seen, paid)
				}
				if w := b.charge(1, tc.seen, "u-1", 100); tc.seen != "COMPLETED" && w.Code != http.StatusConflict {
					t.Errorf("it is not unclear: %d %s", w.Code, w.Body)
				}
				if w := b.post(path, body("REFUNDING")); w.Code != http.StatusConflict {
					t.Errorf("seen as something else: %d %s", w.Code, w.Body)
				}
				if w := b.post(path, body(tc.seen)); w.Code != http.StatusOK {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
				left, is, told := int64(plenty), Failed, 0
				if paid {
					left, is, told = plenty-100, Completed, 1
				}
				want(t, []int64{left, plenty - left}, []int64{b.balance("u-1"), b.sum("merchant.%")})
				want(t, is, b.payments()[order(1)].Status)
				want(t, told, len(sagatest.Drain(t, b.db)))
				b.audit()
				before := b.everything()
				if w := b.post(path, body(string(is))); w.Code != http.StatusOK {
					t.Errorf("again: %d %s", w.Code, w.Body)
				}
				if diff := cmp.Diff(before, b.everything()); diff != "" {
					t.Errorf("again (-before +after):\n%s", diff)
				}
			})
		}
	}
}

// What the ledger decides, nobody else does, nor what half a transfer hides.
func TestDecideRefuses(t *testing.T) {
	t.Parallel()
	for typ, plant := range map[string]string{notUnclear: `SELECT`, unclear: `WITH half AS (DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'charge') UPDATE payments SET amount = 90`} {
		b := setup(t)
		b.bring(1, "COMPLETED")
		b.exec(plant)
		before := b.everything()
		w := b.post("/payments/"+order(1).String()+"/decide", `{"seen":"COMPLETED","paid":false,"userId":"u-1","amount":100,"currency":"EUR"}`)
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), web.TypePrefix+typ) {
			t.Errorf("%s: %d %s", typ, w.Code, w.Body)
		}
		if diff := cmp.Diff(before, b.everything()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", typ, diff)
		}
	}
}
