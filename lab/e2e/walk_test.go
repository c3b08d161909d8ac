package e2e_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The walk's settings: how often something is planted, and by which seed what is.
const (
	walkSteps = "CONVERGE_WALK_STEPS" // default 200
	walkSeed  = "CONVERGE_WALK_SEED"  // default 1
)

// TestWalk plants damage at random into the databases of order, inventory and payment, one after the other: a row is
// deleted, copied, or changed in one column. Tables and columns are those that the databases have, so a new one is
// walked without being told of. Each must be found, with a detail to go by, or be nothing that the services could
// disagree about, for a reason that passes says. Then it is repaired, or left to a person with a reason, who puts the
// row back; and then the services agree, and nobody has less money or stock than before.
//
// What fails is one line: seed and step, table and column, the value before and after, and what the checker said.
func TestWalk(t *testing.T) {
	s := setup(t)
	seed, steps := number(t, walkSeed, 1), number(t, walkSteps, 200)
	t.Logf("%s=%d %s=%d", walkSeed, seed, walkSteps, steps)
	w := &walk{spine: s, garden: s.garden(t), random: rand.New(rand.NewPCG(uint64(seed), 0))} //nolint:gosec // of no secret
	w.sow(t)
	w.ripen(t)
	grounds := w.survey(t)
	var tally map[string]int
	for tally = map[string]int{}; tally["planted"] < steps; {
		for _, g := range shuffled(w.random, grounds) {
			p, ok := w.plant(t, g)
			if !ok {
				tally["refused by the database"]++
				continue
			}
			tally["planted"]++
			outcome, err := w.reap(t, p)
			if tally[outcome]++; err != nil {
				t.Errorf("%s=%d, step %d: %s: %v", walkSeed, seed, tally["planted"], p, err)
				w.recover(t, p)
			}
			if tally["planted"] == steps {
				break
			}
		}
	}
	t.Logf("%d places to plant at: %v", len(grounds), tally)
}

// ripen waits until all orders are old enough to be compared, and agree.
func (w *walk) ripen(t *testing.T) {
	t.Helper()
	var sown int64
	if err := w.garden.order.QueryRow(t.Context(), `SELECT count(*) FROM orders`).Scan(&sown); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all orders are compared", func() error {
		c, err := w.check(t.Context(), false)
		if err == nil && c.Checked < sown {
			err = fmt.Errorf("%d of %d are", c.Checked, sown)
		}
		return err
	})
	w.clean(t)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func shuffled[T any](random *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// sow brings about something of everything that the three databases keep: orders that are confirmed, cancelled and paid
// back, refused for want of stock and declined, deposits and transfers, made and refused.
func (w *walk) sow(t *testing.T) {
	t.Helper()
	tea, cup := w.spine.product(t, 1000), w.spine.product(t, 1)
	var users []string
	for i := range 24 {
		user := unique("walker")
		lines := []item{{tea, int64(1 + i%3)}}
		if i%2 == 0 {
			lines = append(lines, item{w.garden.product, 1})
		}
		var units int64
		for _, l := range lines {
			units += l.Quantity
		}
		o := w.place(t, draft{UserID: user, Items: lines, Amount: 100 * units, Currency: "EUR"})
		users = append(users, user)
		switch i % 8 {
		case 0, 1:
			w.settled(t, o.ID, confirmed, "order.created", "payment.completed")
			w.spine.cancel(t, o)
			w.settled(t, o.ID, cancelled, "order.created", "inventory.released", "order.cancel.requested", "payment.completed", "payment.refunded")
		default:
			w.settled(t, o.ID, confirmed, "order.created", "payment.completed")
		}
	}
	for range 2 {
		o := w.place(t, cart(unique("walker"), cup, 2, 200))
		w.settled(t, o.ID, cancelled, "order.created", "inventory.released", "inventory.reservation.failed")

		frozen := unique("walker")
		w.transfer(t, "/deposits", 201, map[string]any{"depositId": oldID(), "accountId": frozen, "amount": 1000, "currency": "EUR"})
		w.freeze(t, frozen, true)
		o = w.place(t, cart(frozen, tea, 2, 200))
		w.settled(t, o.ID, cancelled, "order.created", "inventory.released", "payment.failed")
		w.freeze(t, frozen, false)
	}
	for i := range 3 {
		w.transfer(t, "/transfers", 201, map[string]any{"transferId": oldID(), "from": users[i], "to": users[i+1], "amount": 7, "currency": "EUR"})
	}
	w.transfer(t, "/transfers", 409, map[string]any{"transferId": oldID(), "from": users[0], "to": users[1], "amount": 10 * opening, "currency": "EUR"})
}

func (w *walk) transfer(t *testing.T, path string, want int, body map[string]any) {
	t.Helper()
	a, err := request(t.Context(), "POST", w.url("payment")+path, body)
	if err != nil || a.status != want {
		t.Fatalf("%s: %d %s %v", path, a.status, a.body, err)
	}
}

// reap has the checker find what was planted, and then repair it, and returns what became of it. The services agree
// then, or there is an error.
func (w *walk) reap(t *testing.T, p *planting) (outcome string, err error) {
	t.Helper()
	found, err := w.look(t)
	if err != nil {
		return "failed", err
	}
	if len(found) == 0 {
		why := p.passes(t)
		if why == "" {
			return "not found", fmt.Errorf("the checker finds nothing")
		}
		w.putBack(t, p)
		return "nothing to disagree about", nil
	}
	said := say(found)
	for _, f := range found {
		if f.Kind == "" || f.Detail == "" || f.OrderID+f.Subject == "" {
			return "failed", fmt.Errorf("the checker does not say what it has found: %s", said)
		}
	}
	if outcome, err = w.repair(t, p); err != nil {
		return outcome, fmt.Errorf("found %s, %w", said, err)
	}
	if harm := w.harm(t, p); harm != "" {
		return "harm", fmt.Errorf("found %s, and %s, but afterwards %s", said, outcome, harm)
	}
	return outcome, nil
}

// repair has the checker repair, and a person what the checker leaves to them: they put the row back.
func (w *walk) repair(t *testing.T, p *planting) (outcome string, err error) {
	t.Helper()
	outcome = "repaired"
	for round := 0; ; round++ {
		c, err := w.check(t.Context(), true)
		if err != nil {
			return "failed", err
		}
		found, err := w.look(t)
		if err != nil || len(found) == 0 {
			return outcome, err
		}
		left := slices.ContainsFunc(c.Findings, func(f finding) bool { return f.Repair.State == "NONE" || f.Repair.State == "REFUSED" })
		for _, f := range c.Findings {
			if (f.Repair.State == "NONE" || f.Repair.State == "REFUSED") && f.Detail+f.Repair.Detail == "" {
				return "failed", fmt.Errorf("left without a reason: %s", say(c.Findings))
			}
		}
		switch {
		case round == 6:
			return "failed", fmt.Errorf("not repaired: %s, then %s", say(c.Findings), say(found))
		case left && outcome == "repaired" && (round > 0 || !slices.ContainsFunc(c.Findings, func(f finding) bool { return f.Repair.State == "DONE" })):
			// What could be done without a person is done.
			w.putBack(t, p)
			outcome = "left to a person"
		}
	}
}

// look checks until nothing is on its way, and returns what is found then.
func (w *walk) look(t *testing.T) (found []finding, err error) {
	t.Helper()
	eventually(t, "nothing is on its way", func() error {
		var c checked
		if c, err = w.check(t.Context(), false); err != nil {
			return err
		}
		if len(c.Failed) > 0 {
			return fmt.Errorf("a part of the check could not look: %v", c.Failed)
		}
		if len(c.Failed) > 0 {
			return fmt.Errorf("a part of the check could not look: %v", c.Failed)
		}
		if found = c.Findings; c.InFlight > 0 {
			return fmt.Errorf("%d are, found: %s", c.InFlight, say(found))
		}
		return nil
	})
	return found, nil
}

// recover puts back what was planted and went wrong, so that what follows begins clean; where that does not help,
// nothing can follow.
func (w *walk) recover(t *testing.T, p *planting) {
	t.Helper()
	w.putBack(t, p)
	w.repaired(t)
	w.clean(t)
	w.last = w.worth(t)
}

// say is what a checker said, on one line.
func say(found []finding) string {
	var all []string
	for _, f := range found {
		all = append(all, fmt.Sprintf("%s at %s%s (%s) -> %s %s %s", f.Kind, f.OrderID, f.Subject, f.Detail, f.Repair.Action, f.Repair.State, f.Repair.Detail))
	}
	return "[" + strings.Join(all, "; ") + "]"
}
