package checker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
)

// Request says what to check. The zero value: everything, and nothing is changed.
type Request struct {
	Order  uuid.UUID // only this order; zero: all of Since
	Since  time.Time // orders placed since then; zero: from the first one on, and the services' own audits and dead letters, too
	Full   bool      // of a check of everything: what was audited before is read again, too
	Repair bool

	// Confirm says that somebody has looked at why the brake holds: what is found is repaired all the same, and databases that are not what they
	// were are what they should be from now on. A check of one order accepts no database.
	Confirm bool

	By string // who asks, for the record; default "checker"
}

// Report is what a check found.
type Report struct {
	At        time.Time    `json:"at" doc:"when it began"`
	Since     time.Time    `json:"since,omitzero" doc:"orders placed since then were compared; none: all"`
	Order     uuid.UUID    `json:"orderId,omitzero" doc:"only this one was"`
	Watermark time.Time    `json:"watermark" doc:"what changed since then was not judged"`
	Looked    []Part       `json:"looked,omitempty" doc:"parts of the check that could look; none: it was of one order"`
	Failed    []Failure    `json:"failed,omitempty" doc:"parts that could not look: what they would have found is not known, and the check is not a clean one"`
	Checked   int64        `json:"checked" doc:"orders that were compared"`
	InFlight  int64        `json:"inFlight" doc:"orders that differ and are on their way"`
	Braked    string       `json:"braked,omitempty" doc:"why nothing is repaired before somebody confirms it; none: what is found may be repaired"`
	Findings  []Finding    `json:"findings" nullable:"false" doc:"by kind, then by id"`
	More      int          `json:"more,omitempty" doc:"findings beyond those that are listed"`
	Kinds     map[Kind]int `json:"kinds,omitempty" doc:"how many findings there are of each kind, with those that are not listed"`
	Cost      Cost         `json:"cost"`
}

// Cost is what a check took.
type Cost struct {
	Requests   int64 `json:"requests"`
	Bytes      int64 `json:"bytes" doc:"that came as answers, without headers"`
	Rows       int64 `json:"rows" doc:"that the services read for digests"`
	DurationMs int64 `json:"durationMs"`
}

// Kind of a finding.
type Kind string

// What is found at orders.
const (
	ConfirmedNotReserved Kind = "confirmed-not-reserved"
	ConfirmedNotPaid     Kind = "confirmed-not-paid"
	PaidNotConfirmed     Kind = "paid-not-confirmed"
	PaidWrongAmount      Kind = "paid-wrong-amount" // or currency
	PaidWrongUser        Kind = "paid-wrong-user"
	ReservedWrongItems   Kind = "reserved-wrong-items"
	ReservedForCancelled Kind = "reserved-for-cancelled"
	PaidForCancelled     Kind = "paid-for-cancelled"
	ReservedWithoutOrder Kind = "reserved-without-order"
	PaidWithoutOrder     Kind = "paid-without-order"
	StuckPending         Kind = "stuck-pending"
	StuckCancelling      Kind = "stuck-cancelling"
)

// What is found elsewhere. The first ten are the services' own rules; one that has another rule is reported with its kind, too.
const (
	StockMismatch        Kind = "stock-mismatch"
	StockChanged         Kind = "stock-changed" // reservations are not those that were audited
	TransferUnbalanced   Kind = "transfer-unbalanced"
	TransferMismatch     Kind = "transfer-mismatch" // the record of a transfer or its entries are lost
	BalanceMismatch      Kind = "balance-mismatch"
	PaymentMismatch      Kind = "payment-mismatch"
	ChargeWithoutPayment Kind = "charge-without-payment" // the ledger's charge is of no payment: its row is lost
	LedgerChanged        Kind = "ledger-changed"         // entries are not those that were audited
	EntriesMismatch      Kind = "entries-mismatch"       // a transfer's entries do not tell of one transfer
	AccountMismatch      Kind = "account-mismatch"       // an account is not what its name and its entries say
	OutboxStuck          Kind = "outbox-stuck"
	DeadLetters          Kind = "dead-letters"
	DatabaseChanged      Kind = "database-changed" // a service answers from another database than before, or from an older copy
)

// Kinds lists them all.
func Kinds() []Kind {
	return []Kind{
		ConfirmedNotReserved, ConfirmedNotPaid, PaidNotConfirmed, PaidWrongAmount, ReservedForCancelled, PaidForCancelled, ReservedWithoutOrder, PaidWithoutOrder,
		PaidWrongUser, ReservedWrongItems, StuckPending, StuckCancelling, StockMismatch, StockChanged, TransferUnbalanced, TransferMismatch, BalanceMismatch, PaymentMismatch, ChargeWithoutPayment,
		EntriesMismatch, AccountMismatch, LedgerChanged, OutboxStuck, DeadLetters, DatabaseChanged,
	}
}

// Finding is something that is wrong.
type Finding struct {
	OrderID uuid.UUID `json:"orderId,omitzero"`
	Subject string    `json:"subject,omitempty" doc:"of what is no order: a product, account, transfer, service or topic"`
	Kind    Kind      `json:"kind"`
	Detail  string    `json:"detail"`
	Repair  Repair    `json:"repair"`

	Acknowledged *Acknowledgement `json:"acknowledged,omitempty" doc:"somebody knows of it: it alarms nobody until then"`
}

func (f Finding) String() string { return string(f.Kind) + " at " + f.subject() + ": " + f.Detail }

// State of a repair.
type State string

// Of one that is not to be done by the checker it is NONE.
const (
	Planned State = "PLANNED"
	Done    State = "DONE"
	Refused State = "REFUSED"
	Failed  State = "FAILED"
	None    State = "NONE"
)

// Repair is what is to be done, or was. All findings at one order have the same one.
type Repair struct {
	Action string `json:"action" example:"reserve, charge" doc:"the steps; operator: only a person can decide; wait: it passes by itself"`
	State  State  `json:"state" enum:"PLANNED,DONE,REFUSED,FAILED,NONE" doc:"PLANNED: not done yet; REFUSED: see detail for what was done instead; FAILED: the next check tries again; NONE: not for the checker to do"`
	Detail string `json:"detail,omitempty"`
	Before *Held  `json:"before,omitempty" doc:"what the services held, of an order"`
	After  *Held  `json:"after,omitempty" doc:"what they hold by what they answered"`
}

// Held is what the three services hold of an order; nil: nothing.
type Held struct {
	Order       *facts.Fact `json:"order,omitempty"`
	Reservation *facts.Fact `json:"reservation,omitempty"`
	Payment     *facts.Fact `json:"payment,omitempty"`
}

// reserved and paid tell whether the order is in these services' sets.
func (h Held) reserved() bool { return h.Reservation != nil && h.Reservation.Member }
func (h Held) paid() bool     { return h.Payment != nil && h.Payment.Member }

// refunding tells whether the payment is about to be paid back.
func (h Held) refunding() bool { return h.paid() && h.Payment.Status == statusRefunding }

func (h Held) nothing() bool { return h.Order == nil && h.Reservation == nil && h.Payment == nil }

// each lists what is held, by whom.
func (h Held) each() []*facts.Fact {
	return slices.DeleteFunc([]*facts.Fact{h.Order, h.Reservation, h.Payment}, func(f *facts.Fact) bool { return f == nil })
}

// same tells whether two looks saw the same; what is there for people may change meanwhile.
func (h Held) same(o Held) bool {
	same := func(a, b *facts.Fact) bool {
		if a == nil || b == nil {
			return a == b
		}
		return a.Member == b.Member && a.Status == b.Status && a.Amount == b.Amount && a.Currency == b.Currency && a.ChangedAt.Equal(b.ChangedAt) &&
			a.Items == b.Items && (a.UserID == nil) == (b.UserID == nil) && (a.UserID == nil || *a.UserID == *b.UserID)
	}
	return same(h.Order, o.Order) && same(h.Reservation, o.Reservation) && same(h.Payment, o.Payment)
}

func (h Held) String() string {
	parts := make([]string, 0, 3)
	for _, one := range []struct {
		name string
		fact *facts.Fact
	}{{"order", h.Order}, {"reservation", h.Reservation}, {"payment", h.Payment}} {
		if one.fact == nil {
			parts = append(parts, "no "+one.name)
			continue
		}
		text := one.name + " " + one.fact.Status
		if one.fact.Amount != 0 {
			text += fmt.Sprintf(" (%d %s)", one.fact.Amount, one.fact.Currency)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// maxFindings are listed in a report.
const maxFindings = 1000

// tell puts findings in order and counts them, those too that were not kept.
func (r *Report) tell(found []Finding, dropped map[Kind]int) {
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), slices.Compare(a.OrderID[:], b.OrderID[:]), cmp.Compare(a.Subject, b.Subject))
	})
	r.Kinds = map[Kind]int{}
	for kind, n := range dropped {
		r.Kinds[kind] += n
		r.More += n
	}
	for _, f := range found {
		r.Kinds[f.Kind]++
	}
	r.More += max(0, len(found)-maxFindings)
	r.Findings = append([]Finding{}, found[:min(len(found), maxFindings)]...)
}
