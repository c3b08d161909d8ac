package checker

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Request says what to check. The zero value: everything, and nothing is changed.
type Request struct {
	Order  uuid.UUID // only this order; zero: all of Since
	Since  time.Time // orders placed since then; zero: from the first one on, and the services' own audits and dead letters, too
	Full   bool      // of a check of everything: what was audited before is read again, too
	Repair bool

	// Confirm says that somebody has looked at why the brake holds: what is found is repaired all the same, and
	// databases that are not what they were are what they should be from now on. A check of one order accepts no
	// database.
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

// What is found whatever the services are. The other kinds are those of the rules and of the services' audits.
const (
	OutboxStuck     Kind = "outbox-stuck"
	DeadLetters     Kind = "dead-letters"
	DatabaseChanged Kind = "database-changed" // a service answers from another database than before, or from an older copy
)

// Finding is something that is wrong.
type Finding struct {
	OrderID uuid.UUID `json:"orderId,omitzero"` // the id of the thing that the facts are of: a saga's key, which is an order's id in most systems
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
