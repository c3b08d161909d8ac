package compare

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/measure"
)

// Each row is one order as the three databases have it; nothing written is nothing stored.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		order, stock, money string
		accepted            bool
		want                string
	}{
		{"CONFIRMED", "RESERVED", "COMPLETED", true, "0"},
		{"CONFIRMED", "RESERVED", "COMPLETED", false, "0"},
		{"CANCELLED", "RELEASED", "FAILED", true, "0"},
		{"CANCELLED", "RELEASED", "REFUNDED", false, "0"},
		{"CANCELLED", "REFUSED", "", false, "0"},
		{"CANCELLED", "", "", false, "0"},
		{"", "", "", false, "0"},
		{"", "RELEASED", "REFUNDED", false, "0"}, // marks that refuse what comes late hold nothing
		{"CONFIRMED", "RESERVED", "", true, "1 (1 confirmed and not paid)"},
		{"CONFIRMED", "RESERVED", "FAILED", true, "1 (1 confirmed and not paid)"},
		{"CONFIRMED", "RESERVED", "REFUNDED", true, "1 (1 confirmed and not paid)"},
		{"CONFIRMED", "RELEASED", "COMPLETED", true, "1 (1 confirmed and nothing reserved)"},
		{"CONFIRMED", "", "", true, "1 (1 confirmed and not paid, 1 confirmed and nothing reserved)"},
		{"PENDING", "RESERVED", "COMPLETED", false, "1 (1 paid and not confirmed, 1 stock held for nothing, 1 undecided)"},
		{"PENDING", "RESERVED", "", false, "1 (1 stock held for nothing, 1 undecided)"},
		{"PENDING", "", "", false, "1 (1 undecided)"},
		{"CANCELLED", "RELEASED", "COMPLETED", false, "1 (1 cancelled and money held)"},
		{"CANCELLED", "RESERVED", "REFUNDED", false, "1 (1 stock held for nothing)"},
		{"", "RESERVED", "COMPLETED", false, "1 (1 paid and not confirmed, 1 stock held for nothing)"},
		{"", "", "", true, "1 (1 accepted and lost)"},
	} {
		id := uuid.New()
		state := func(status string) map[uuid.UUID]string {
			if status == "" {
				return nil
			}
			return map[uuid.UUID]string{id: status}
		}
		accepted := map[uuid.UUID]struct{}{}
		if tc.accepted {
			accepted[id] = struct{}{}
		}
		if got := judge(state(tc.order), state(tc.stock), state(tc.money), accepted).tally().String(); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
	}
}

// A scenario is blamed for what it added, and for each order once.
func TestFlawsSince(t *testing.T) {
	t.Parallel()
	old, worse, better, fresh := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	before := flaws{old: stockHeld, worse: undecided, better: undecided | stockHeld}
	now := flaws{old: stockHeld, worse: undecided | stockHeld, better: undecided, fresh: moneyHeld | stockHeld}
	want := Tally{Orders: 2, Ways: map[string]int{"stock held for nothing": 2, "cancelled and money held": 1}}
	if diff := cmp.Diff(want, now.since(before).tally()); diff != "" {
		t.Error(diff)
	}
}

func TestComparedCounts(t *testing.T) {
	t.Parallel()
	from := time.Now()
	at := func(ms int) time.Time { return from.Add(time.Duration(ms) * time.Millisecond) }
	inTime, late, never, untold := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	visits := []visit{
		{due: at(0), answered: at(1), order: inTime},
		{due: at(10), answered: at(12), order: late},
		{due: at(20), answered: at(23), order: never},
		{due: at(30), answered: at(34), failure: "503 no"},
		{due: at(40), failure: "connection refused"},
		{due: at(50), answered: at(59), failure: "503 no"},
	}
	confirmed := map[uuid.UUID]time.Time{inTime: at(500), late: at(2010), untold: at(700)}
	var got Compared
	got.count(visits, confirmed, driver.Window{From: from, To: from.Add(time.Second)})
	want := Compared{
		Offered: 6, Accepted: 3, Failed: 3, Failure: "503 no", Failures: 2, Confirmed: 3, Untold: 1, ConfirmedPerSecond: 2,
		Answer: measure.Quantiles{P50: 3, P90: 9, P99: 9, Max: 9}, Settled: measure.Quantiles{P50: 500, P90: 2000, P99: 2000, Max: 2000},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Customers come at their times although nobody before them has been answered, and tell one failure from the other.
func TestCustomersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	const n = 20
	arrived := make(chan struct{}, n)
	all := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if arrived <- struct{}{}; len(arrived) == n {
			close(all)
		}
		<-all
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"detail":"payment does not answer"}`))
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	c := newCustomers(addr, 1, 1)
	defer c.close()
	c.come(t.Context(), driver.Evenly(1000, n*time.Millisecond), n*time.Millisecond)
	srv.Close()
	c.close()
	c.come(t.Context(), driver.Evenly(1000, time.Millisecond), time.Millisecond)
	got := map[string]int{}
	for _, v := range c.visits {
		got[v.failure]++
	}
	if diff := cmp.Diff(map[string]int{"503 payment does not answer": n, "connection refused": 1}, got); diff != "" {
		t.Error(diff)
	}
}

func TestComparisonIsATable(t *testing.T) {
	t.Parallel()
	c := Comparison{Results: []Compared{
		{Scenario: "a", Design: Synchronous, Left: Tally{Orders: 1, Ways: map[string]int{"undecided": 1}}, Reconciled: &Tally{}},
		{Scenario: "b", Design: Synchronous}, {Scenario: "a", Design: Converge}, {Scenario: "b", Design: Converge},
	}}
	var b strings.Builder
	c.print(&b)
	var rows []string
	for line := range strings.Lines(b.String()) {
		if cells := strings.Split(line, " | "); len(cells) == 14 && cells[0] != "| scenario" && cells[0] != "| ---" {
			rows = append(rows, strings.TrimPrefix(cells[0], "| ")+" "+cells[1]+" "+cells[12]+" "+strings.TrimSuffix(cells[13], " |\n"))
		}
	}
	want := []string{"a synchronous 1 (1 undecided) 0", "a converge 0 ", "b synchronous 0 ", "b converge 0 "}
	if diff := cmp.Diff(want, rows); diff != "" || c.violated() {
		t.Error(diff, c.violated())
	}
	if c.Results[2].Left.Orders = 1; !c.violated() {
		t.Error("the system left an order inconsistent, and nobody minds")
	}
}
