package event

// Code says for programs why something is refused, cancelled or not possible yet; the text beside it says so for
// people, and may change at any time. Codes are only added: a consumer takes one that it does not know for a reason
// like any other. An event from before there were codes has none, and its text is all there is.
type Code string

// The codes of this project's services. Behind each are its parameters, which are text: of numbers the decimal digits.
const (
	// Inventory's, which has reserved nothing then.
	CodeUnknownProduct Code = "unknown-product" // productId
	CodeOutOfStock     Code = "out-of-stock"    // productId, wanted, available
	CodePriceMismatch  Code = "price-mismatch"  // askedAmount, askedCurrency; amount, currency: what it is, or productId, currency: of a product in another

	// Payment's, which has charged nothing then, or cannot pay back yet.
	CodeDeclined            Code = "declined"             // userId, or amount, limit
	CodeNotAUsersAccount    Code = "not-a-users-account"  // accountId
	CodeInsufficientBalance Code = "insufficient-balance" // accountId, wanted, available
	CodeAccountFrozen       Code = "account-frozen"       // accountId; currency: of a further account
	CodeCurrencyMismatch    Code = "currency-mismatch"    // accountId, currency: the payment's
	CodeNoCharge            Code = "no-charge"            // the ledger has none
	CodeDecidedByOperator   Code = "decided-by-operator"

	// Of an order that somebody does not want any more.
	CodeCancelledByUser Code = "cancelled-by-user"
	CodeExpired         Code = "expired"         // PENDING for too long
	CodeReconciled      Code = "reconciled"      // by: who has compared what all hold of the order
	CodeOrderCancelled  Code = "order-cancelled" // before inventory or payment learned of the order
)

// Refusal tells whether the code says that inventory or payment would not have the order. False: somebody cancelled it.
func (c Code) Refusal() bool {
	switch c {
	case CodeCancelledByUser, CodeExpired, CodeReconciled, CodeOrderCancelled:
		return false
	}
	return true
}

// Parameters are what a code is about, by name: the product, or what was wanted and what there is. A nil map is none.
type Parameters map[string]string
