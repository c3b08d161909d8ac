package checker

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

var (
	noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	term = terms{now: noon, pending: 20 * time.Minute, cancelling: 10 * time.Minute}
)

// judge judges an order a minute after everything that was told had been heard.
func judge(h Held, t terms) (flaws []checker.Flaw, inFlight bool) {
	return rule(t.pending, t.cancelling).Judge(h.all(), checker.Terms{Watermark: t.now.Add(-time.Minute), Now: t.now})
}

// The ages of a fact: after the watermark, before it, and for longer than any order may be on its way.
var ages = map[string]time.Duration{"young": time.Second, "old": 5 * time.Minute, "overdue": time.Hour}

// What each service can hold of an order; empty is nothing.
var (
	orderStates       = []string{"", "PENDING", "CONFIRMED", "CANCELLING", "CANCELLED"}
	reservationStates = []string{"", "RESERVED", "RELEASED", "REFUSED"}
	paymentStates     = []string{"", "COMPLETED", "REFUNDING", "FAILED", "REFUNDED"}
)

func fact(status, member string, age time.Duration) *facts.Fact {
	if status == "" {
		return nil
	}
	return &facts.Fact{ID: idAt(noon.Add(-time.Hour), 1), Status: status, Member: strings.Contains(member, status), ChangedAt: noon.Add(-age)}
}

// holding is what is held when the facts have these states and ages.
func holding(order, reservation, payment string, ages ...time.Duration) Held {
	h := Held{fact(order, "CONFIRMED", ages[0]), fact(reservation, "RESERVED", ages[1]), fact(payment, "COMPLETED REFUNDING", ages[2])}
	for _, f := range []*facts.Fact{h.Order, h.Payment} {
		if f != nil {
			f.Amount, f.Currency = 4200, "EUR"
		}
	}
	return h
}

// idAt is the n-th id of a millisecond.
func idAt(at time.Time, n int) uuid.UUID {
	id := facts.FirstOf(at)
	copy(id[6:], fmt.Sprintf("\x70\x00\x80\x00%06d", n))
	return id
}

// everyCase calls fn with every combination of what the services can hold.
func everyCase(fn func(order, reservation, payment string)) {
	for _, order := range orderStates {
		for _, reservation := range reservationStates {
			for _, payment := range paymentStates {
				fn(order, reservation, payment)
			}
		}
	}
}

// agreed is what must be, in other words than the checker's: in all three sets or in none, and nothing more to come.
func agreed(order, reservation, payment string) bool {
	paid := payment == "COMPLETED" || payment == "REFUNDING"
	switch order {
	case "CONFIRMED":
		return reservation == "RESERVED" && paid
	case "CANCELLED", "":
		return reservation != "RESERVED" && !paid
	default:
		return false
	}
}

// refundWaits tells whether nothing but a refund that waits keeps the services from agreeing.
func refundWaits(order, reservation, payment string) bool {
	return payment == "REFUNDING" && reservation != "RESERVED" && (order == "" || order == "CANCELLING" || order == "CANCELLED")
}

// A refund that waits, as while the merchant is frozen, is judged by one deadline, whatever its order is: by how long
// it waits.
func TestJudgeRefundsThatWait(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"", "CANCELLING", "CANCELLED"} {
		for age, late := range map[time.Duration]bool{term.cancelling: false, term.cancelling + time.Second: true} {
			h := holding(order, "RELEASED", "REFUNDING", ages["overdue"], ages["overdue"], age)
			flaws, inFlight := judge(h, term)
			if late != (len(flaws) == 1) || late == inFlight {
				t.Errorf("order %q, a refund that waits for %s: %v, in flight %v", order, age, flaws, inFlight)
			}
			if late && planFor(h, flaws).String() != "wait" {
				t.Errorf("order %q: plan %s", order, planFor(h, flaws))
			}
		}
	}
}

// Whatever is held, and however old it is: who agrees is left alone, what has changed since the watermark is not
// judged, and of the rest only an order that may still be on its way is not called wrong.
func TestJudge(t *testing.T) {
	t.Parallel()
	n := 0
	everyCase(func(order, reservation, payment string) {
		for oa, orderAge := range ages {
			for ra, reservationAge := range ages {
				for pa, paymentAge := range ages {
					n++
					h := holding(order, reservation, payment, orderAge, reservationAge, paymentAge)
					flaws, inFlight := judge(h, term)
					name := fmt.Sprintf("order %s %s, reservation %s %s, payment %s %s", order, oa, reservation, ra, payment, pa)
					young := order != "" && oa == "young" || reservation != "" && ra == "young" || payment != "" && pa == "young"
					onItsWay := (order == "PENDING" && !h.paid() || order == "CANCELLING") && oa == "old" || refundWaits(order, reservation, payment) && pa == "old"
					switch {
					case agreed(order, reservation, payment):
						if len(flaws) > 0 || inFlight {
							t.Errorf("%s: %v, in flight %v; the services agree", name, flaws, inFlight)
						}
					case young || onItsWay:
						if len(flaws) > 0 || !inFlight {
							t.Errorf("%s: %v, in flight %v; want it in flight", name, flaws, inFlight)
						}
					case len(flaws) == 0 || inFlight:
						t.Errorf("%s: in flight %v; want it called wrong", name, inFlight)
					}
				}
			}
		}
	})
	if want := 5 * 4 * 5 * 27; n != want {
		t.Errorf("%d cases, want %d", n, want)
	}
}

// What each of the cases is called that are wrong, and what is to be done, for people to read.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	everyCase(func(order, reservation, payment string) {
		var old string
		for _, age := range []string{"old", "overdue"} {
			flaws, _ := judge(holding(order, reservation, payment, ages[age], ages["old"], ages[age]), term)
			var kinds []string
			for _, f := range flaws {
				kinds = append(kinds, string(f.Kind))
			}
			verdict := fmt.Sprintf("%-42s -> %s", strings.Join(kinds, ", "), planFor(holding(order, reservation, payment, 0, 0, 0), flaws))
			if len(flaws) > 0 && verdict != old { // the second time only if it makes a difference
				fmt.Fprintf(&got, "%-10s %-8s %-9s %-7s: %s\n", dash(order), dash(reservation), dash(payment), age, verdict)
				old = verdict
			}
		}
	})
	golden(t, "testdata/verdicts.txt", got.String())
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestJudgeAmounts(t *testing.T) {
	t.Parallel()
	old := ages["old"]
	for name, change := range map[string]func(*Held){
		"amount":   func(h *Held) { h.Payment.Amount++ },
		"currency": func(h *Held) { h.Payment.Currency = "USD" },
	} {
		h := holding("CONFIRMED", "RESERVED", "COMPLETED", old, old, old)
		change(&h)
		flaws, inFlight := judge(h, term)
		if len(flaws) != 1 || flaws[0].Kind != PaidWrongAmount || inFlight {
			t.Errorf("another %s: %v, in flight %v", name, flaws, inFlight)
		}
		if p := planFor(h, flaws).String(); p != "operator" {
			t.Errorf("another %s: plan %s, want it left to an operator", name, p)
		}
		h.Payment.ChangedAt = noon
		if flaws, inFlight := judge(h, term); len(flaws) > 0 || !inFlight {
			t.Errorf("another %s, of this moment: %v, in flight %v", name, flaws, inFlight)
		}
	}
	// What nobody has confirmed may not be what was ordered; when it is confirmed it must be.
	h := holding("CANCELLED", "RELEASED", "REFUNDED", old, old, old)
	h.Payment.Amount++
	if flaws, inFlight := judge(h, term); len(flaws) > 0 || inFlight {
		t.Errorf("an amount that was paid back: %v, in flight %v", flaws, inFlight)
	}
}

// A plan does something about each order that is wrong, unless it says for whom it is, and never takes back in one step
// what it does in another.
func TestPlanOfEveryCase(t *testing.T) {
	t.Parallel()
	everyCase(func(order, reservation, payment string) {
		h := holding(order, reservation, payment, ages["overdue"], ages["old"], ages["old"])
		flaws, _ := judge(h, term)
		p := planFor(h, flaws)
		has := func(s step) bool { return slices.Contains(p.steps, s) }
		name := h.String() + ": " + p.String()
		switch {
		case len(flaws) == 0 && len(p.steps) > 0:
			t.Errorf("%s, though nothing is wrong", name)
		case len(flaws) > 0 && len(p.steps) == 0:
			t.Errorf("%s, though it is wrong", name)
		case has(stepReserve) && has(stepRelease), has(stepCharge) && has(stepRefund), has(stepConfirm) && has(stepCancel):
			t.Errorf("%s does and undoes", name)
		case has(stepReserve) && h.reserved(), has(stepRelease) && !h.reserved(), has(stepCharge) && h.paid(), has(stepRefund) && (!h.paid() || h.refunding()):
			t.Errorf("%s asks for what is so already", name)
		case p.todo() != slices.ContainsFunc(p.steps, func(s step) bool { return s != stepWait && s != stepOperator }):
			t.Errorf("%s: todo %v", name, p.todo())
		case has(stepWait) && !h.refunding():
			t.Errorf("%s waits for nothing", name)
		}
	})
}
