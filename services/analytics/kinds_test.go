package analytics

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/event"
)

// Refusals are counted by their codes, whatever the texts say; a text that pretends to be another reason, or that was
// reworded, changes nothing. A code that nobody knows here is one kind with all others, and one that says that the
// order was cancelled is none.
func TestCodesAreCounted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	n := 0
	paid := func(code event.Code, about event.Parameters, texts ...string) {
		for _, text := range texts {
			n++
			b.deliver(whole(t, n, 1), at(t, 5, event.PaymentFailed, order(n).String(), event.PaymentFailedV1{OrderID: order(n), Error: text, Code: code, Parameters: about}))
		}
	}
	reserved := func(code event.Code, about event.Parameters, texts ...string) {
		for _, text := range texts {
			n++
			b.deliver(whole(t, n, 1), at(t, 5, event.InventoryReservationFailed, order(n).String(),
				event.InventoryReservationFailedV1{OrderID: order(n), Error: text, Code: code, Parameters: about}))
		}
	}
	reserved(event.CodeOutOfStock, event.Parameters{"productId": "cup", "wanted": "2", "available": "1"}, "out of stock: cup: 2 wanted, 1 available", "only one cup is left", "released before it was reserved")
	reserved(event.CodePriceMismatch, event.Parameters{"askedAmount": "1"}, "price mismatch: 1 EUR asked, it is 2", "it costs more than you think", "out of stock: cup")
	reserved(event.CodeUnknownProduct, event.Parameters{"productId": "cup"}, "no such thing")
	paid(event.CodeDeclined, event.Parameters{"userId": "ada"}, "user ada is declined", "we do not like ada", "the order was cancelled: I am called so")
	paid(event.CodeDeclined, event.Parameters{"amount": "9", "limit": "7"}, "amount 9 is above the limit of 7")
	paid(event.CodeInsufficientBalance, nil, "insufficient balance: 12 wanted, 3 available", "broke")
	paid("too-shy", nil, "user ada is declined", "user ada is too shy")
	for i := range 30 {
		paid(event.Code(fmt.Sprintf("code-%d", i)), nil, "new")
	}
	paid(event.CodeOrderCancelled, nil, "the order was cancelled: out of patience", "insufficient balance: 1 wanted, 0 available")
	paid(event.CodeExpired, nil, "expired")
	reserved(event.CodeOrderCancelled, nil, "reworded")

	want := []any{
		row{"by": "payment", "code": "other", "reason": "other", "orders": 32.0},
		row{"by": "inventory", "code": "out-of-stock", "reason": "out of stock: cup", "orders": 3.0},
		row{"by": "inventory", "code": "price-mismatch", "reason": "price mismatch", "orders": 3.0},
		row{"by": "payment", "code": "declined", "reason": "user is declined", "orders": 3.0},
		row{"by": "payment", "code": "insufficient-balance", "reason": "insufficient balance: N wanted, N available", "orders": 2.0},
		row{"by": "inventory", "code": "unknown-product", "reason": "unknown product", "orders": 1.0},
		row{"by": "payment", "code": "declined", "reason": "amount N is above the limit of N", "orders": 1.0},
	}
	if diff := cmp.Diff(want, b.report("refusals")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
