package payment

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// Why an order is not paid is said in a code with parameters, besides the text: at first, again, from what is stored,
// and when the order is undone.
func TestReasonsHaveCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 50
	b.deliver(reserved(t, 90, "cold", 1))
	b.freeze("cold", true)
	for n, tc := range []struct {
		user   string
		amount int64
		want   event.PaymentFailedV1
	}{
		{"mallory", 10, event.PaymentFailedV1{Error: "user mallory is declined", Code: event.CodeDeclined, Parameters: event.Parameters{"userId": "mallory"}}},
		{"ada", 2000, event.PaymentFailedV1{
			Error: "amount 2000 is above the limit of 1000", Code: event.CodeDeclined, Parameters: event.Parameters{"amount": "2000", "limit": "1000"},
		}},
		{"ada", 51, event.PaymentFailedV1{
			Error: "insufficient balance: 51 wanted, 50 available", Code: event.CodeInsufficientBalance,
			Parameters: event.Parameters{"accountId": "ada", "wanted": "51", "available": "50"},
		}},
		{"cold", 10, event.PaymentFailedV1{Error: "account cold is frozen", Code: event.CodeAccountFrozen, Parameters: event.Parameters{"accountId": "cold"}}},
		{"merchant.EUR", 10, event.PaymentFailedV1{
			Error: "account merchant.EUR is not a user's", Code: event.CodeNotAUsersAccount, Parameters: event.Parameters{"accountId": "merchant.EUR"},
		}},
	} {
		tc.want.OrderID = order(n)
		for _, r := range []broker.Record{reserved(t, n, tc.user, tc.amount), reserved(t, n, tc.user, tc.amount), cancelled(t, n), cancelled(t, n)} {
			said := b.deliver(r)
			if diff := cmp.Diff(tc.want, sagatest.Decode(t, event.PaymentFailed, said[0])); diff != "" {
				t.Errorf("%s at %s (-want +got):\n%s", tc.user, r.Topic, diff)
			}
		}
		if p := b.record(n); p.ReasonCode != tc.want.Code || !cmp.Equal(p.ReasonParameters, tc.want.Parameters) {
			t.Errorf("%s: stored %s %v", tc.user, p.ReasonCode, p.ReasonParameters)
		}
	}

	mark := event.PaymentFailedV1{OrderID: order(20), Error: "the order was cancelled: changed my mind", Code: event.CodeOrderCancelled}
	for _, r := range []broker.Record{cancelled(t, 20), cancelled(t, 20), reserved(t, 20, "ada", 1)} {
		want(t, mark, sagatest.Decode(t, event.PaymentFailed, b.deliver(r)[0]))
	}

	b.deliver(reserved(t, 21, "ada", 1))
	b.freeze("merchant.EUR", true)
	frozen := event.PaymentRefundFailedV1{OrderID: order(21), Error: "account merchant.EUR is frozen", Code: event.CodeAccountFrozen}
	want(t, frozen, sagatest.Decode(t, event.PaymentRefundFailed, b.deliver(cancelled(t, 21))[0]))
}

// What was stored before there were codes is told without one.
func TestReasonsFromBeforeCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(`INSERT INTO payments (order_id, id, user_id, amount, currency, status, reason) VALUES ($1, $1, 'ada', 5, 'EUR', 'FAILED', 'user ada is declined')`, order(1))
	want(t, event.PaymentFailedV1{OrderID: order(1), Error: "user ada is declined"},
		sagatest.Decode(t, event.PaymentFailed, b.deliver(reserved(t, 1, "ada", 5))[0]))
}
