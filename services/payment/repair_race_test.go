package payment

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Whoever charges and pays back at the same time, each order's money is moved as often as its payment says, and nobody
// gets a fault for an answer.
func TestRepairsRace(t *testing.T) {
	t.Parallel()
	const orders, users = 32, 3
	b := setup(t)
	var all sync.WaitGroup
	send := func(w *httptest.ResponseRecorder) {
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	for n := range orders {
		user := fmt.Sprintf("u-%d", n%users)
		all.Go(func() {
			for _, seen := range []string{"NONE", "FAILED", "REFUNDED"} {
				send(b.charge(n, seen, user, 100))
			}
		})
		all.Go(func() { send(b.refund(n, "COMPLETED")) })
		all.Go(func() { send(b.post("/payments/"+order(n).String()+"/recount", `{}`)) })
		all.Go(func() { sagatest.Deliver(t, b.db, Choreography(b.Config), reserved(t, n, user, 100)) })
		all.Go(func() { sagatest.Deliver(t, b.db, Choreography(b.Config), cancelled(t, n)) })
	}
	for n := range users {
		all.Go(func() { send(b.post(fmt.Sprintf("/accounts/u-%d/recount", n), `{}`)) })
		all.Go(func() { send(b.post("/accounts/merchant.EUR/recount", `{}`)) })
	}
	all.Wait()
	paid := int64(0)
	for _, p := range b.payments() {
		if p.Status == Completed {
			paid += p.Amount
		}
	}
	want(t, []int64{paid, users*plenty - paid}, []int64{b.sum("merchant.%"), b.sum("u-%")})
	b.audit()
}

// A payment that the saga adds after a command has looked for it is looked at then: there is one charge.
func TestChargeMeetsTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t)
	answer := make(chan *httptest.ResponseRecorder, 1)
	err := pg.InTx(t.Context(), b.db, func(tx pgx.Tx) error {
		// The saga's payer is another, so the command waits for nothing before it adds a payment, too.
		err := save(t.Context(), tx, newUnitOfWork(), []Payment{{OrderID: order(1), ID: order(1), UserID: "ada", Amount: 1, Currency: "EUR", Status: Failed, Reason: "declined"}})
		if err != nil {
			return err
		}
		if _, err := tx.Exec(t.Context(), `SELECT`); err != nil { // what was put off is done now
			return err
		}
		go func() { answer <- b.charge(1, "NONE", "bob", 1) }()
		pgtest.AwaitLock(t, b.db)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if w := <-answer; w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), facts.TypeChanged) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want(t, int64(0), b.sum("merchant.%"))
	b.audit()
}
