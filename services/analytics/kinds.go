package analytics

import (
	"regexp"
	"strings"

	"github.com/converge-dev/converge/pkg/event"
)

// other is the kind, and the code, of every reason that is none of those known here: it may be anything, words of users
// too.
const other = "other"

// kinds are the reasons that are counted, in the order in which they are looked for. What is different in every order
// is left out, since it hides how many are alike; only the products that are out of stock are told apart, of which
// there are as many as inventory has. A kind is of its own kind.
//
// Events have codes, which decide. Of those from before, and of rows that were written down as kinds, the words do.
var kinds = []struct {
	reason *regexp.Regexp
	kind   string // $1 is what the reason has in parentheses
	code   event.Code
}{
	{regexp.MustCompile(`^(out of stock: [A-Za-z0-9._-]{1,64})(?:: .*)?$`), "$1", event.CodeOutOfStock},
	{regexp.MustCompile(`^out of stock\b`), "out of stock", event.CodeOutOfStock},
	{regexp.MustCompile(`^unknown product\b`), "unknown product", event.CodeUnknownProduct},
	{regexp.MustCompile(`^price mismatch\b`), "price mismatch", event.CodePriceMismatch},
	{regexp.MustCompile(`^user (?:.* )?is declined$`), "user is declined", event.CodeDeclined},
	{regexp.MustCompile(`^amount .* is above the limit of `), "amount N is above the limit of N", event.CodeDeclined},
	{regexp.MustCompile(`^insufficient balance\b`), "insufficient balance: N wanted, N available", event.CodeInsufficientBalance},
	{regexp.MustCompile(`^account (?:.* )?is frozen$`), "account is frozen", event.CodeAccountFrozen},
	{regexp.MustCompile(`^account (?:.* )?is not a user's$`), "account is not a user's", event.CodeNotAUsersAccount},
	{regexp.MustCompile(`^account .* is in ..., not in ...$|^account is in another currency$`), "account is in another currency", event.CodeCurrencyMismatch},
	{regexp.MustCompile(`^no charge in the ledger$`), "no charge in the ledger", event.CodeNoCharge},
	{regexp.MustCompile(`^an operator decided\b`), "an operator decided", event.CodeDecidedByOperator},
	{regexp.MustCompile(`^released before it was reserved$`), "released before it was reserved", event.CodeOrderCancelled},
}

// kindOf is what a reason has in common with others of its kind. There are as many kinds as the code and the catalogue
// know, whatever the reason says.
func kindOf(reason string) string {
	reason = strings.Join(strings.Fields(reason), " ")
	for _, k := range kinds {
		if m := k.reason.FindStringSubmatchIndex(reason); m != nil {
			return string(k.reason.ExpandString(nil, k.kind, reason, m))
		}
	}
	return other
}

// codeOf is the code of a kind.
func codeOf(kind string) event.Code {
	for _, k := range kinds {
		if k.reason.MatchString(kind) {
			return k.code
		}
	}
	return other
}

// kindOfEvent is the kind of a refusal. Its code decides, whatever the text says: the text only tells apart what has
// one code.
func kindOfEvent(code event.Code, about event.Parameters, text string) string {
	if code == "" {
		return kindOf(text)
	}
	if code == event.CodeOutOfStock {
		text = "out of stock: " + about["productId"]
	}
	if kind := kindOf(text); codeOf(kind) == code {
		return kind
	}
	for _, k := range kinds {
		if k.code == code && k.kind != "$1" {
			return k.kind
		}
	}
	return other // of a service that is newer
}

// ofCancelled tells whether a reason without a code is no refusal: payment and inventory say so of an order that was
// cancelled before they learned of it, payment with the words of whoever cancelled it.
func ofCancelled(reason string) bool {
	return reason == "released before it was reserved" || reason == "the order was cancelled" || strings.HasPrefix(reason, "the order was cancelled:")
}

// refusal tells whether a reason is one: nobody refused an order that somebody cancelled.
func refusal(code event.Code, text string) bool {
	if code != "" {
		return code.Refusal()
	}
	return !ofCancelled(text)
}
