package payment

import "github.com/converge-dev/converge/pkg/event"

// codes are what events call the refusals of transfers.
var codes = map[string]event.Code{
	insufficientBalance: event.CodeInsufficientBalance,
	currencyMismatch:    event.CodeCurrencyMismatch,
	accountFrozen:       event.CodeAccountFrozen,
	paymentDeclined:     event.CodeDeclined,
}

// code is what events call the refusal.
func (r *Refusal) code() event.Code { return codes[r.Type] }

// about are the parameters of the code of a transfer that was refused.
func (b *unitOfWork) about(r *Refusal, t Transfer) event.Parameters {
	p, from := event.Parameters{"accountId": t.From}, b.find(t.From, t.Currency)
	switch r.Type {
	case insufficientBalance:
		p["wanted"], p["available"] = digits(t.Amount), digits(from.Balance)
	case accountFrozen:
		if from.id != t.From { // a further account, which may be frozen alone
			p["currency"] = from.Currency
		}
	case currencyMismatch:
		if p["currency"] = t.Currency; from != nil && from.Currency == t.Currency {
			p["accountId"] = t.To
		}
	}
	return p
}
