package inventory

import (
	"fmt"
	"math/big"

	"github.com/converge-dev/converge/pkg/event"
)

// Money is an amount of a currency.
type Money struct {
	Amount   int64  // minor units
	Currency string // ISO 4217
}

// cost is what lines cost together: exact, for a price and a quantity of 64 bits each can have a product of more, and a
// sum has no bound.
func cost(lines []Line, prices map[string]Money) *big.Int {
	sum, one := new(big.Int), new(big.Int)
	for _, l := range lines {
		one.Mul(big.NewInt(prices[l.ProductID].Amount), big.NewInt(l.Quantity))
		sum.Add(sum, one)
	}
	return sum
}

// mismatch is why the lines, whose products are all known, are not to be had for what is asked, or nothing.
func (b *unitOfWork) mismatch(lines []Line, asked Money) refusal {
	for _, l := range lines {
		if is := b.prices[l.ProductID].Currency; is != asked.Currency {
			text := fmt.Sprintf("price mismatch: %d %s asked, the price of %s is in %s", asked.Amount, asked.Currency, l.ProductID, is)
			return asked.refused(text, event.Parameters{"productId": l.ProductID, "currency": is})
		}
	}
	is := cost(lines, b.prices)
	if is.IsInt64() && is.Int64() == asked.Amount {
		return refusal{}
	}
	text := fmt.Sprintf("price mismatch: %d %s asked, it is %s", asked.Amount, asked.Currency, is)
	return asked.refused(text, event.Parameters{"amount": is.String(), "currency": asked.Currency})
}

// refused is the refusal of what was asked, with what it is.
func (asked Money) refused(text string, is event.Parameters) refusal {
	is["askedAmount"], is["askedCurrency"] = digits(asked.Amount), asked.Currency
	return refusal{text, event.CodePriceMismatch, is}
}
