package payment

import (
	"strings"
	"testing"
)

// A transfer that is not whole keeps the balances on its two sides and its order's payment as they are, for they tell
// what it lacks. Others are counted anew.
func TestRecountBesideAHalfTransfer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.bring(1, "COMPLETED")
	b.bring(2, "COMPLETED")
	// Nobody can say what the half of the charge is: both accounts were changed, too.
	b.exec(`DELETE FROM entries WHERE account_id = 'u-1' AND kind = 'charge'`)
	b.exec(`UPDATE accounts SET balance = balance + 7`)
	b.exec(`UPDATE payments SET status = 'FAILED', reason = 'planted'`)
	half := b.payments()[order(1)].ID.String()
	if w := b.post("/transfers/"+half+"/recount", `{}`); w.Code != 409 {
		t.Fatalf("the half transfer: %d %s", w.Code, w.Body)
	}
	for path, want := range map[string]string{
		"/accounts/u-1":                  "409 " + half,
		"/accounts/merchant.EUR":         "409 " + half,
		"/payments/" + order(1).String(): "409 a transfer of the order is not whole",
		"/accounts/u-2":                  `200 "balance":999999900`,
		"/payments/" + order(2).String(): `200 "status":"COMPLETED"`,
		"/accounts/nobody":               "404 ",
	} {
		status, says, _ := strings.Cut(want, " ")
		w := b.post(path+"/recount", `{}`)
		if got := w.Result().Status; !strings.HasPrefix(got, status) || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %s %s, want %s", path, got, w.Body, want)
		}
	}
}
