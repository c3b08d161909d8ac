package payment

import (
	"net/http"
	"testing"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Of a user with accounts in two currencies the further one is frozen alone: what is to be paid from it is refused,
// with its code, and the other pays.
func TestFrozenFurtherAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.deliver(reserved(t, 1, "ada", 10), reservedIn(t, "USD", 2, "ada", 10))
	api := b.api()
	put := func(query, frozen string, status int, says string) {
		t.Helper()
		got, answer := request(t, api, http.MethodPut, "/accounts/ada/frozen"+query, `{"frozen": `+frozen+`}`)
		if got != status || answer["currency"] != says && answer["type"] != web.TypePrefix+says {
			t.Errorf("PUT %s %s: %d %v, want %d %s", query, frozen, got, answer, status, says)
		}
	}
	frozen := func(wants ...bool) {
		t.Helper()
		for i, currency := range []string{"EUR", "USD"} {
			if _, a := request(t, api, http.MethodGet, "/accounts/ada?currency="+currency, ""); a["frozen"] != wants[i] {
				t.Errorf("in %s: %v, want frozen %t", currency, a, wants[i])
			}
		}
	}
	put("?currency=USD", "true", 200, "USD")
	put("?currency=USD", "true", 200, "USD")
	frozen(false, true)
	b.deliver(reserved(t, 3, "ada", 10))
	want(t, Completed, b.payments()[order(3)].Status)
	refused := event.PaymentFailedV1{
		OrderID: order(4), Error: "account ada in USD is frozen",
		Code: event.CodeAccountFrozen, Parameters: event.Parameters{"accountId": "ada", "currency": "USD"},
	}
	want(t, refused, sagatest.Decode(t, event.PaymentFailed, b.deliver(reservedIn(t, "USD", 4, "ada", 10))[0]))
	status, answer := request(t, api, http.MethodPost, "/transfers",
		`{"transferId": "`+id(9)+`", "from": "ada", "to": "merchant.USD", "amount": 1, "currency": "USD"}`)
	if status != http.StatusConflict || answer["type"] != web.TypePrefix+accountFrozen {
		t.Errorf("a transfer: %d %v", status, answer)
	}

	// What was paid from it before is paid back to it all the same.
	b.deliver(cancelled(t, 2))
	want(t, Refunded, b.payments()[order(2)].Status)

	put("?currency=USD", "false", 200, "USD")
	frozen(false, false)
	b.deliver(reservedIn(t, "USD", 5, "ada", 10))
	want(t, Completed, b.payments()[order(5)].Status)

	// The first account's mark stands for all.
	put("?currency=EUR", "true", 409, "all-or-none")
	put("?currency=CHF", "true", 404, "not-found")
	put("?currency=usd", "true", 422, "invalid-request")
	frozen(false, false)
	put("", "true", 200, "EUR")
	frozen(true, true)
	put("?currency=USD", "false", 409, "all-or-none")
	frozen(true, true)
	put("", "false", 200, "EUR")
	frozen(false, false)
	b.audit()
}
