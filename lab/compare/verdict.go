package compare

import (
	"fmt"
	"maps"
	"strings"

	"github.com/google/uuid"
)

// flaw is a way in which an order can be left between two states; an order can have several.
type flaw uint8

const (
	unpaid      flaw = 1 << iota // CONFIRMED, and not paid
	unreserved                   // CONFIRMED, and nothing is reserved
	unconfirmed                  // paid, and neither CONFIRMED nor CANCELLED, for good
	moneyHeld                    // paid, and CANCELLED
	stockHeld                    // something is reserved, and it is not CONFIRMED
	undecided                    // neither CONFIRMED nor CANCELLED, for good
	lost                         // accepted, and not stored
)

// flawNames are what the tables call them.
var flawNames = [...]string{
	"confirmed and not paid", "confirmed and nothing reserved", "paid and not confirmed", "cancelled and money held",
	"stock held for nothing", "undecided", "accepted and lost",
}

// flaws are the orders that are wrong.
type flaws map[uuid.UUID]flaw

// judge holds the three databases against each other, by the status of each order in each, and against what clients
// were told. PENDING counts as a flaw, so it is to be asked when nothing is under way any more.
func judge(orders, reservations, payments map[uuid.UUID]string, accepted map[uuid.UUID]struct{}) flaws {
	out := flaws{}
	mark := func(id uuid.UUID, is bool, f flaw) {
		if is {
			out[id] |= f
		}
	}
	for id, status := range orders {
		mark(id, status == "CONFIRMED" && payments[id] != "COMPLETED", unpaid)
		mark(id, status == "CONFIRMED" && reservations[id] != "RESERVED", unreserved)
		mark(id, status != "CONFIRMED" && status != "CANCELLED", undecided)
	}
	for id, status := range payments {
		paid := status == "COMPLETED"
		mark(id, paid && orders[id] == "CANCELLED", moneyHeld)
		mark(id, paid && orders[id] != "CANCELLED" && orders[id] != "CONFIRMED", unconfirmed)
	}
	for id, status := range reservations {
		mark(id, status == "RESERVED" && orders[id] != "CONFIRMED", stockHeld)
	}
	for id := range accepted {
		_, stored := orders[id]
		mark(id, !stored, lost)
	}
	return out
}

// since returns what was not wrong before.
func (f flaws) since(before flaws) flaws {
	out := flaws{}
	for id, is := range f {
		if is &^= before[id]; is != 0 {
			out[id] = is
		}
	}
	return out
}

func (f flaws) equal(other flaws) bool { return maps.Equal(f, other) }

// Tally counts orders that were left between two states.
type Tally struct {
	Orders int            `json:"orders"` // each once
	Ways   map[string]int `json:"ways,omitempty"`
}

func (f flaws) tally() Tally {
	t := Tally{Orders: len(f)}
	for _, is := range f {
		for i, name := range flawNames {
			if is&(1<<i) != 0 {
				if t.Ways == nil {
					t.Ways = map[string]int{}
				}
				t.Ways[name]++
			}
		}
	}
	return t
}

// String is the number, and what it consists of in the order of the ways.
func (t Tally) String() string {
	var ways []string
	for _, name := range flawNames {
		if n := t.Ways[name]; n > 0 {
			ways = append(ways, fmt.Sprintf("%d %s", n, name))
		}
	}
	if len(ways) == 0 {
		return fmt.Sprint(t.Orders)
	}
	return fmt.Sprintf("%d (%s)", t.Orders, strings.Join(ways, ", "))
}
