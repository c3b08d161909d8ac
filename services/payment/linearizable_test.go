package payment

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/testkit/sagatest"
)

// banking is a transfer between two of the accounts or, without an amount, a look at one.
type banking struct{ from, to, amount int }

type banked struct {
	status  int
	balance int
}

// Transfers and balances are answered as if everything came one after the other, while balances are folded beside them.
func TestBalancesAreLinearizable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	api := b.api()
	names := []string{"ada", "bob", "carl"}
	for _, name := range names {
		b.deposit(name, 100)
	}
	step := func(is [3]int, in banking, out banked) ([3]int, bool) {
		switch {
		case in.amount == 0:
			return is, out.balance == is[in.from]
		case out.status == http.StatusConflict:
			return is, is[in.from] < in.amount
		}
		is[in.from], is[in.to] = is[in.from]-in.amount, is[in.to]+in.amount
		return is, out.status < 300 && is[in.from] >= 0
	}
	ctx, stop := context.WithCancel(t.Context())
	folded := make(chan error, 1)
	go func() {
		f := balanceFolder{db: b.db}
		for ctx.Err() == nil {
			if err := f.fold(t.Context()); err != nil {
				folded <- err
				return
			}
		}
		folded <- nil
	}()
	sagatest.Linearizable(t, [3]int{100, 100, 100}, step, 4, func(_ int, do func(in banking, call func() banked) banked) {
		for range 12 {
			in := banking{from: rand.IntN(3)}
			if rand.IntN(2) == 0 {
				in.to, in.amount = (in.from+1+rand.IntN(2))%3, 1+rand.IntN(80)
			}
			do(in, func() banked {
				if in.amount == 0 {
					status, got := request(t, api, http.MethodGet, "/accounts/"+names[in.from], "")
					balance, _ := got["balance"].(float64)
					return banked{status, int(balance)}
				}
				body := fmt.Sprintf(`{"transferId": %q, "from": %q, "to": %q, "amount": %d, "currency": "EUR"}`,
					uuid.Must(uuid.NewV7()), names[in.from], names[in.to], in.amount)
				status, _ := request(t, api, http.MethodPost, "/transfers", body)
				return banked{status: status}
			})
		}
	})
	stop()
	if err := <-folded; err != nil {
		t.Error(err)
	}
}
