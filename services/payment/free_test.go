package payment

import (
	"net/http"
	"testing"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// An order that costs nothing is paid like any other, and paid back, once each and without moving money: its user needs
// none, and needs no account.
func TestFreeOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	first := b.deliver(reserved(t, 1, "ada", 0))
	if len(first) != 1 {
		t.Fatalf("it says %v", b.told(first...))
	}
	paid := sagatest.Decode(t, event.PaymentCompleted, first[0])
	want(t, event.PaymentCompletedV1{OrderID: order(1), PaymentID: b.record(1).ID, Currency: "EUR"}, paid)
	want(t, b.told(first...), b.told(b.deliver(reserved(t, 1, "ada", 0))...))
	want(t, []string{order(2).String() + ": user mallory is declined"}, b.told(b.deliver(reserved(t, 2, "mallory", 0))...))
	b.audit()

	back := b.deliver(cancelled(t, 1), cancelled(t, 2))
	want(t, event.PaymentRefundedV1{OrderID: order(1), PaymentID: paid.PaymentID, Currency: "EUR"}, sagatest.Decode(t, event.PaymentRefunded, back[0]))
	want(t, Refunded, b.record(1).Status)
	want(t, "DONE", b.record(1).Refund.State)
	want(t, b.told(back[0]), b.told(b.deliver(cancelled(t, 1))...))
	b.audit()

	for _, table := range []string{"accounts", "entries", "pending"} {
		var rows int
		if err := b.db.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&rows); err != nil || rows != 0 {
			t.Errorf("%d %s, %v", rows, table, err)
		}
	}
}

// The commands that repair a payment know that of nothing the ledger says nothing.
func TestRepairsOfFreeOrders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "ada", 0), reserved(t, 2, "ada", 0), reserved(t, 3, "ada", 0), reserved(t, 4, "mallory", 0))
	do := func(status int, is Status, n int, w interface{ Result() *http.Response }) {
		t.Helper()
		if got := w.Result().StatusCode; got != status || b.record(n).Status != is {
			t.Errorf("%d, and it is %s; want %d and %s", got, b.record(n).Status, status, is)
		}
	}
	do(http.StatusOK, Completed, 1, b.post("/payments/"+order(1).String()+"/recount", `{}`))
	do(http.StatusOK, Failed, 4, b.post("/payments/"+order(4).String()+"/recount", `{}`))
	do(http.StatusOK, Refunded, 2, b.refund(2, "COMPLETED"))
	do(http.StatusOK, Completed, 2, b.charge(2, "REFUNDED", "ada", 0))
	b.exec(`UPDATE payments SET status = 'FAILED', reason = 'planted' WHERE order_id = $1`, order(3))
	do(http.StatusOK, Completed, 3, b.charge(3, "FAILED", "ada", 0))
	b.exec(`DELETE FROM payments WHERE order_id = $1`, order(1))
	do(http.StatusOK, Completed, 1, b.charge(1, "NONE", "ada", 0))
	b.audit()
}
