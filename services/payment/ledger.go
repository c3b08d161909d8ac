package payment

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Account holds money of one currency. Its balance is never below zero unless MayGoNegative.
type Account struct {
	ID            string    `json:"accountId" example:"ada" doc:"a user's account has the user's id"`
	Currency      string    `json:"currency" example:"EUR" doc:"ISO 4217"`
	Balance       int64     `json:"balance" doc:"in minor units" example:"4200"`
	MayGoNegative bool      `json:"mayGoNegative" doc:"true of where money comes from"`
	Frozen        bool      `json:"frozen" doc:"a frozen account refuses debits"`
	CreatedAt     time.Time `json:"createdAt"`
}

// Kind of a transfer.
type Kind string

// Why money moves.
const (
	Opening Kind = "opening" // an account's first balance, from outside
	Deposit Kind = "deposit" // from outside
	Move    Kind = "transfer"
	Charge  Kind = "charge" // of an order: its id is the payment's
	Refund  Kind = "refund" // of an order

	Correction Kind = "correction" // takes back an entry that should not be there
)

// Transfer moves an amount from one account to another, as two entries that sum to zero.
type Transfer struct {
	ID       uuid.UUID
	Kind     Kind
	From, To string
	Amount   int64 // minor units, positive
	Currency string
	Order    uuid.UUID // that it is a charge or a refund of; of any other transfer zero
}

// Refusal is why a transfer was not made. Type is the last part of a problem's type.
type Refusal struct{ Type, Reason string }

// The types of refusals.
const (
	insufficientBalance = "insufficient-balance"
	currencyMismatch    = "currency-mismatch"
	accountFrozen       = "account-frozen"
	paymentDeclined     = "payment-declined"
	noPayment           = "no-payment"
	unclear             = "unclear" // only a person can say
	belowZero           = "balance-below-zero"
)

// bank knows the accounts that are the system's own, by their names, and how a user's account begins.
type bank struct {
	merchant string // the merchant's accounts begin with it; default "merchant"
	opening  int64  // what a user's account holds when its first use opens it
}

const external = "external"

func (b bank) merchantOf(currency string) string { return b.merchant + "." + currency }

// externalOf is the account that money comes from: what all others hold is what it owes.
func (b bank) externalOf(currency string) string { return external + "." + currency }

// internal tells whether an id is that of an account of the system's own, which no user can have, and in which currency it is.
func (b bank) internal(id string) (currency string, ok bool) {
	name, currency := nameOf(id)
	return currency, currency != "" && (name == external || name == b.merchant)
}

// checked tells whether an account's balance must be looked at, under its lock, before it is debited.
func checked(id string) bool {
	name, currency := nameOf(id)
	return currency == "" || name != external
}

// nameOf takes the id of an account of the system's own apart. The currency is empty where the id cannot be one.
func nameOf(id string) (name, currency string) {
	i := strings.LastIndexByte(id, '.')
	if i < 0 || len(id)-i-1 != 3 {
		return id, ""
	}
	return id[:i], id[i+1:]
}

// books are the accounts that a transaction works on, and what it changes. Transfers apply one after the other, so a batch
// comes out as they would alone, in its order.
type books struct {
	accounts map[string]*account
	entries  []entry
	moved    map[string]int64 // per account that is locked, what its balance changes by; what was pending included
	pending  map[string]int64 // per other account, what is to be added some time
}

// account is one that the transaction knows. The balance is that of a locked one; of others nobody asks for it.
type account struct {
	Account
	locked bool
}

// entry is one of the two sides of a transfer.
type entry struct {
	account, counterparty string
	transfer              uuid.UUID
	kind                  Kind
	amount                int64
	order                 uuid.UUID // zero: of no order
}

func newBooks() *books {
	return &books{accounts: map[string]*account{}, moved: map[string]int64{}, pending: map[string]int64{}}
}

// transfer makes both entries, or says why not. Both accounts are known. The debited one is locked if it is to be checked.
func (b *books) transfer(t Transfer) *Refusal {
	from, to := b.accounts[t.From], b.accounts[t.To]
	switch {
	case from.Currency != t.Currency:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is in %s, not in %s", t.From, from.Currency, t.Currency)}
	case to.Currency != t.Currency:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is in %s, not in %s", t.To, to.Currency, t.Currency)}
	case from.Frozen:
		return &Refusal{accountFrozen, fmt.Sprintf("account %s is frozen", t.From)}
	case !from.MayGoNegative && from.Balance < t.Amount:
		return &Refusal{insufficientBalance, fmt.Sprintf("insufficient balance: %d wanted, %d available", t.Amount, from.Balance)}
	}
	b.post(from, -t.Amount)
	b.post(to, t.Amount)
	b.entries = append(b.entries, t.entries()...)
	return nil
}

func (b *books) post(a *account, amount int64) {
	a.Balance += amount
	if a.locked {
		b.moved[a.ID] += amount
	} else {
		b.pending[a.ID] += amount
	}
}

// fold takes what was pending of a locked account into its balance. One that was not there to be locked, and has come since, is
// unknown to this transaction.
func (b *books) fold(id string, amount int64) error {
	a := b.accounts[id]
	if a == nil {
		return unknownAccount(id)
	}
	b.post(a, amount)
	return nil
}
