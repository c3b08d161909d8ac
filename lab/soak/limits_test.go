package soak

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
)

func TestLongestGap(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	times := []time.Time{at(0), at(1), at(5), at(6)}
	for _, tc := range []struct{ from, until, want float64 }{
		{0, 6, 4},      // between two
		{2, 4, 2},      // with none in it
		{5.5, 9, 3},    // after the last
		{-3, 0.5, 3},   // before the first
		{1, 5, 4},      // from one to the next
		{7, 7, 0},      // no time at all
		{0.25, 2, 1},   // the end of it
		{-2, -1, 1},    // long before
		{5.25, 6, .75}, // the beginning of it
	} {
		if got := longestGap(times, at(tc.from), at(tc.until)).Seconds(); got != tc.want {
			t.Errorf("from %g until %g: %g s, want %g", tc.from, tc.until, got, tc.want)
		}
	}
	if got := longestGap(nil, at(0), at(3)); got != 3*time.Second {
		t.Errorf("with nothing at all: %s", got)
	}
}

// standstills is facts of a system in which orders settled, and were counted, every second but for a time.
func standstills(from, until int, episodes ...Episode) *facts {
	f, _, _, _, _ := sound()
	f.topics["order.confirmed"], f.topics["order.cancelled"] = map[uuid.UUID][]record{}, map[uuid.UUID][]record{}
	for s := range 120 {
		f.topics["order.cancelled"][uuid.New()] = []record{{at: second(s)}} // while it was PENDING: that goes on
		if at := second(s); s < from || s > until {
			f.topics["order.confirmed"][uuid.New()] = []record{{at: at}}
			f.countedAt = append(f.countedAt, at)
		}
	}
	f.episodes, f.ended, f.patience = episodes, second(100), time.Minute
	return f
}

func second(s int) time.Time { return time.Unix(1000+int64(s), 0) }

// What a fault may cost is held against it, and not against one that others may have to do with.
func TestCheckLimits(t *testing.T) {
	poisoned := Episode{Fault: "key-poisoned", On: "witness", Start: second(30), End: second(55)}
	const stopped, over = "a fault stopped more than it concerns", "work did not go on when a fault was over"
	for name, tc := range map[string]struct {
		facts *facts
		rules []string
	}{
		"all goes on":                  {standstills(-1, -1, poisoned), nil},
		"all is over":                  {standstills(90, 120, poisoned), nil},
		"nothing settles for a while":  {standstills(32, 40, poisoned), nil},
		"nothing settles for long":     {standstills(32, 50, poisoned), []string{stopped}},
		"nothing settles at the end":   {standstills(47, 70, poisoned), []string{over}},
		"nothing settles, in part":     {standstills(20, 38, poisoned), nil},
		"another goes on":              {standstills(32, 50, poisoned, Episode{Fault: "kill", Start: second(50), End: second(52)}), nil},
		"another was before":           {standstills(20, 42, poisoned, Episode{Fault: "kill", Start: second(20), End: second(28)}), nil},
		"another was before, for long": {standstills(20, 54, poisoned, Episode{Fault: "kill", Start: second(20), End: second(28)}), []string{stopped}},
		"one without a limit":          {standstills(32, 70, Episode{Fault: "kafka-away", Start: second(30), End: second(55)}), nil},
	} {
		v := &verdict{rules: map[string]int{}}
		tc.facts.checkLimits(v)
		var rules []string
		for _, found := range v.found {
			rules = append(rules, found.Rule)
		}
		if !slices.Equal(rules, tc.rules) {
			t.Errorf("%s: violations %v, want %v", name, v.found, tc.rules)
		}
	}
}

// One partition that stands still is seen where it may not, though orders of others settle.
func TestCheckLimitsOfPartitions(t *testing.T) {
	f := standstills(-1, -1, Episode{Fault: "frozen-in-transaction", On: "payment", Start: second(30), End: second(55)})
	for s := range 120 {
		if s < 31 || s > 50 {
			f.topics["order.confirmed"][uuid.New()] = []record{{at: second(s), partition: 4}}
		}
	}
	v := &verdict{rules: map[string]int{}}
	if f.checkLimits(v); len(v.found) != 1 || v.found[0].Rule != "a fault stopped some for longer than it may" {
		t.Errorf("violations %v", v.found)
	}
}

// A witness that stands still is seen, though orders settle.
func TestCheckLimitsOfTheWitness(t *testing.T) {
	f := standstills(-1, -1, Episode{Fault: "key-poisoned", On: "witness", Start: second(30), End: second(55)})
	f.countedAt = slices.DeleteFunc(f.countedAt, func(at time.Time) bool { return at.After(second(31)) && at.Before(second(50)) })
	v := &verdict{rules: map[string]int{}}
	if f.checkLimits(v); len(v.found) != 1 {
		t.Errorf("violations %v", v.found)
	}
}

func TestSettlingHasABound(t *testing.T) {
	f, _, _, _, _ := sound()
	f.settling, f.patience = 31*time.Second, 30*time.Second
	if found := check(f); len(found) != 1 || found[0].Rule != "settling took too long" {
		t.Errorf("violations %v", found)
	}
}

// A message that is too large for a dead letter is known by its place, wherever its headers went.
func TestPoisonIsKnownByItsPlace(t *testing.T) {
	f, _, _, _, _ := sound()
	at := place(&broker.Record{Topic: "order.created", Partition: 3, Offset: 17})
	f.poisoned = append(f.poisoned, poisoned{id: "large", topic: "order.created", place: at})
	f.dead = append(f.dead, deadLetter{group: "inventory", topic: "order.created", reason: "too large", from: at})
	if found := check(f); len(found) > 0 {
		t.Errorf("violations %v", found)
	}
	f.poisoned[len(f.poisoned)-1].free = true // buried or not, it is what it is
	if found := check(f); len(found) > 0 {
		t.Errorf("violations of what is not asked for: %v", found)
	}
	f.poisoned[len(f.poisoned)-1].free = false
	f.dead[1].from = "order.created/3 at 18"
	if found := check(f); len(found) != 2 { // that is not buried, and something else is
		t.Errorf("violations %v", found)
	}
}

// Of a topic that was deleted, only poison of its last minute is not asked for.
func TestForgive(t *testing.T) {
	p := &poisons{}
	p.add(poisoned{id: "late", topic: "order.confirmed"})
	p.add(poisoned{id: "elsewhere", topic: "order.created"})
	p.add(poisoned{id: "early", topic: "order.confirmed"})
	p.sent[2].at = time.Now().Add(-time.Hour)
	if n := p.forgive("order.confirmed"); n != 1 {
		t.Errorf("%d are forgiven", n)
	}
	var asked []string
	for _, one := range p.all() {
		if !one.free {
			asked = append(asked, one.id)
		}
	}
	if !slices.Equal(asked, []string{"elsewhere", "early"}) {
		t.Errorf("asked for are %v", asked)
	}
}

// Faults that need the brokers whole do not come with one that takes a broker away.
func TestWhatHoldsBrokersComesAlone(t *testing.T) {
	held := map[string][]string{}
	for _, f := range faults() {
		held[f.name] = f.holds("kafka")
	}
	for _, one := range []string{"topic-deleted", "kafka-amnesia", "partition-leaderless", rollingUpgrade} {
		for _, other := range []string{"kafka-restart", "kafka-away", "kafka-cut", "kafka-amnesia", "partition-leaderless"} {
			if one != other && !slices.ContainsFunc(held[one], func(what string) bool { return slices.Contains(held[other], what) }) {
				t.Errorf("%s may come with %s", one, other)
			}
		}
	}
	for _, name := range []string{"topic-deleted", "key-poisoned", "kafka-amnesia"} {
		if !slices.Contains(held[name], "topics") {
			t.Errorf("%s may come with poison", name)
		}
	}
}

// The watcher may say of a broker that was away that events wait, and of clocks that are an hour apart anything; for a
// while.
func TestExcused(t *testing.T) {
	second := func(n int) time.Time { return time.Unix(int64(n), 0) }
	may := excused([]Episode{{Fault: "kafka-amnesia", On: "kafka", Start: second(10), End: second(80)}, {Fault: "clock", On: "order", Start: second(200), End: second(220)}}, 10*time.Second)
	stuck, lost := `{"kind": "outbox-stuck"}`, `{"kind": "confirmed-not-paid"}`
	for _, tc := range []struct {
		at      int
		finding string
		want    bool
	}{
		{9, stuck, false}, {40, stuck, true}, {85, stuck, true}, {95, stuck, false}, {40, lost, false}, {210, lost, true}, {270, lost, true}, {290, lost, false},
	} {
		if got := may(sighting{second(tc.at), tc.finding}); got != tc.want {
			t.Errorf("%s at %d: %v", tc.finding, tc.at, got)
		}
	}
}
