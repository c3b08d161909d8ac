package payment

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Account holds money of one currency, and is known by its owner and its currency. Its balance is never below zero
// unless MayGoNegative.
type Account struct {
	ID            string    `json:"accountId" example:"ada" doc:"a user's accounts, one for each currency, have the user's id"`
	Currency      string    `json:"currency" example:"EUR" doc:"ISO 4217"`
	Balance       int64     `json:"balance" doc:"in minor units" example:"4200"`
	MayGoNegative bool      `json:"mayGoNegative" doc:"true of where money comes from, and of where it waits until somebody knows whose it is"`
	Frozen        bool      `json:"frozen" doc:"a frozen account refuses debits: it was frozen alone, or with all of its owner's"`
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

	Correction Kind = "correction" // takes back an entry that should not be there, or what a person moved
)

// Transfer moves an amount from one account to another, as two entries that sum to zero. Both accounts are in its
// currency.
type Transfer struct {
	ID       uuid.UUID
	Kind     Kind
	From, To string // who the accounts belong to
	Amount   int64  // minor units, positive
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

// The system's own accounts beside the merchant's: where money comes from, and where it is that nobody knows yet whose
// it is. Both may be below zero.
const (
	external = "external"
	suspense = "suspense"
)

func (b bank) merchantOf(currency string) string { return b.merchant + "." + currency }

// externalOf is the account that money comes from: what all others hold is what it owes.
func (b bank) externalOf(currency string) string { return external + "." + currency }

// internal tells whether an id is that of an account of the system's own, which no user can have, and in which currency
// it is.
func (b bank) internal(id string) (currency string, ok bool) {
	name, currency := nameOf(id)
	return currency, currency != "" && (name == external || name == suspense || name == b.merchant)
}

// user tells whether an id can be a user's.
func (b bank) user(id string) bool {
	_, internal := b.internal(id)
	return !internal && !strings.Contains(id, furtherMark)
}

// checked tells whether an account's balance must be looked at, under its lock, before it is debited.
func checked(id string) bool {
	name, currency := nameOf(id)
	return currency == "" || name != external && name != suspense
}

// nameOf takes the id of an account of the system's own apart. The currency is empty where the id cannot be one.
func nameOf(id string) (name, currency string) {
	i := strings.LastIndexByte(id, '.')
	if i < 0 || len(id)-i-1 != 3 {
		return id, ""
	}
	return id[:i], id[i+1:]
}

// accountKey names an account by whose it is and its currency.
type accountKey struct{ owner, currency string }

// An account's id is its owner's. Where a user has accounts in several currencies, that holds of the one that was
// opened first; the id of a further one has its currency behind it, after a tab, which no user's id can have. Ids are
// unambiguous so, and processes that know one account a user work beside: they find the first account, and refuse what
// is in another currency.
const (
	furtherMark = "\t"

	ownerColumn = `split_part(a.id, E'\t', 1)` // of accounts a; accounts_of_owner is the index by it

)

func ownerOf(id string) string {
	owner, _, _ := strings.Cut(id, furtherMark)
	return owner
}

// furtherID is the id of an owner's account in a currency, unless it is the first one.
func furtherID(owner, currency string) string { return owner + furtherMark + currency }

// labelOf is an account's id for people.
func labelOf(id string) string {
	if owner, currency, further := strings.Cut(id, furtherMark); further {
		return owner + " in " + currency
	}
	return id
}

// own is the key with the currency of an account of the system's own, which its name says whatever is asked for.
func (b bank) own(key accountKey) accountKey {
	if currency, internal := b.internal(key.owner); internal {
		key.currency = currency
	}
	return key
}

// unitOfWork are the accounts that a transaction works on, and what it changes. Transfers apply one after the other, so
// a batch comes out as they would alone, in its order.
type unitOfWork struct {
	accounts map[accountKey]*account
	byID     map[string]*account
	entries  []entry
	moved    map[string]int64 // per account that is locked, what its balance changes by; what was pending included
	pending  map[string]int64 // per other account, what is to be added some time
}

// account is one that the transaction knows. The balance is that of a locked one; of others nobody asks for it.
type account struct {
	Account
	id     string // as it is stored
	locked bool
}

func (a *account) key() accountKey { return accountKey{a.ID, a.Currency} }

// entry is one of the two sides of a transfer.
type entry struct {
	account, counterparty string // ids
	transfer              uuid.UUID
	kind                  Kind
	amount                int64
	order                 uuid.UUID // zero: of no order
}

func newUnitOfWork() *unitOfWork {
	return &unitOfWork{accounts: map[accountKey]*account{}, byID: map[string]*account{}, moved: map[string]int64{}, pending: map[string]int64{}}
}

func (b *unitOfWork) add(a *account) { b.accounts[a.key()], b.byID[a.id] = a, a }

// find is an owner's account in a currency; of the system's own, the one that has the name. It is nil where the
// transaction knows none.
func (b *unitOfWork) find(owner, currency string) *account {
	if a := b.accounts[accountKey{owner, currency}]; a != nil {
		return a
	}
	_, currency = nameOf(owner)
	return b.accounts[accountKey{owner, currency}]
}

// transfer makes both entries, or says why not. Accounts that it needs were opened, or it is refused. The debited one
// is locked if it is to be checked.
func (b *unitOfWork) transfer(t Transfer) *Refusal {
	from, to := b.find(t.From, t.Currency), b.find(t.To, t.Currency)
	switch {
	case from == nil:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is not in %s", t.From, t.Currency)}
	case from.Currency != t.Currency:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is in %s, not in %s", t.From, from.Currency, t.Currency)}
	case to == nil:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is not in %s", t.To, t.Currency)}
	case to.Currency != t.Currency:
		return &Refusal{currencyMismatch, fmt.Sprintf("account %s is in %s, not in %s", t.To, to.Currency, t.Currency)}
	case from.Frozen:
		return &Refusal{accountFrozen, fmt.Sprintf("account %s is frozen", labelOf(from.id))}
	case !from.MayGoNegative && from.Balance < t.Amount:
		return &Refusal{insufficientBalance, fmt.Sprintf("insufficient balance: %d wanted, %d available", t.Amount, from.Balance)}
	}
	b.post(from, -t.Amount)
	b.post(to, t.Amount)
	b.entries = append(b.entries,
		entry{from.id, to.id, t.ID, t.Kind, -t.Amount, t.Order},
		entry{to.id, from.id, t.ID, t.Kind, t.Amount, t.Order})
	return nil
}

func (b *unitOfWork) post(a *account, amount int64) {
	a.Balance += amount
	if a.locked {
		b.moved[a.id] += amount
	} else {
		b.pending[a.id] += amount
	}
}

// fold takes what was pending of a locked account into its balance. One that was not there to be locked, and has come
// since, is unknown to this transaction.
func (b *unitOfWork) fold(id string, amount int64) error {
	a := b.byID[id]
	if a == nil {
		return unknownAccount{owner: ownerOf(id)}
	}
	b.post(a, amount)
	return nil
}
