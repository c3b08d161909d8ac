package checker

import "github.com/converge-dev/converge/pkg/checker"

// What is found at orders.
const (
	ConfirmedNotReserved checker.Kind = "confirmed-not-reserved"
	ConfirmedNotPaid     checker.Kind = "confirmed-not-paid"
	PaidNotConfirmed     checker.Kind = "paid-not-confirmed"
	PaidWrongAmount      checker.Kind = "paid-wrong-amount" // or currency
	PaidWrongUser        checker.Kind = "paid-wrong-user"
	ReservedWrongItems   checker.Kind = "reserved-wrong-items"
	ReservedForCancelled checker.Kind = "reserved-for-cancelled"
	PaidForCancelled     checker.Kind = "paid-for-cancelled"
	ReservedWithoutOrder checker.Kind = "reserved-without-order"
	PaidWithoutOrder     checker.Kind = "paid-without-order"
	StuckPending         checker.Kind = "stuck-pending"
	StuckCancelling      checker.Kind = "stuck-cancelling"
)

// ofOrders lists what is found at orders.
var ofOrders = []checker.Kind{
	ConfirmedNotReserved, ConfirmedNotPaid, PaidNotConfirmed, PaidWrongAmount, ReservedForCancelled, PaidForCancelled, ReservedWithoutOrder, PaidWithoutOrder,
	PaidWrongUser, ReservedWrongItems, StuckPending, StuckCancelling,
}

// What the services find with themselves.
const (
	StockMismatch        checker.Kind = "stock-mismatch"
	StockChanged         checker.Kind = "stock-changed" // reservations are not those that were audited
	TransferUnbalanced   checker.Kind = "transfer-unbalanced"
	TransferMismatch     checker.Kind = "transfer-mismatch" // the record of a transfer or its entries are lost
	BalanceMismatch      checker.Kind = "balance-mismatch"
	PaymentMismatch      checker.Kind = "payment-mismatch"
	ChargeWithoutPayment checker.Kind = "charge-without-payment" // the ledger's charge is of no payment: its row is lost
	LedgerChanged        checker.Kind = "ledger-changed"         // entries are not those that were audited
	EntriesMismatch      checker.Kind = "entries-mismatch"       // a transfer's entries do not tell of one transfer
	AccountMismatch      checker.Kind = "account-mismatch"       // an account is not what its name and its entries say
)
