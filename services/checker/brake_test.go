package checker

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// undoes has the services carry out releases and refunds. It returns how many there were.
func (b *bundle) undoes() *atomic.Int64 {
	var n atomic.Int64
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		id := uuid.MustParse(strings.Split(r.URL.Path, "/")[2])
		to := map[bool]string{true: "REFUNDED", false: "RELEASED"}[strings.HasSuffix(r.URL.Path, "/refund")]
		table := map[string]string{"REFUNDED": "payments", "RELEASED": "reservations"}[to]
		b.exec(`UPDATE `+table+` SET status = $2 WHERE order_id = $1`, id, to)
		answer(w, facts.Fact{ID: id, Status: to, ChangedAt: noon})
	})
	return &n
}

func statesOf(r checker.Report) map[checker.State]int {
	n := map[checker.State]int{}
	for _, f := range r.Findings {
		n[f.Repair.State]++
	}
	return n
}

// With an empty order database everything that is paid looks wrong. It is told, and nothing is paid back, however often
// a check looks; when somebody has confirmed it, no more than a number is.
func TestBrakeHoldsForMostOrders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(idsOf(300, time.Second)...)
	b.exec(`DELETE FROM orders`)
	undone := b.undoes()
	b.cfg.MaxRepairs = 50
	for range 2 {
		r := b.check(checker.Request{Repair: true})
		if n := undone.Load(); n != 0 || r.Braked != "300 of 300 orders are to be repaired, and no more than 20 are likely to be wrong" {
			t.Fatalf("%d undone; braked: %q", n, r.Braked)
		}
		if diff := cmp.Diff(map[checker.State]int{checker.Planned: 600}, statesOf(r)); diff != "" || r.Findings[0].Repair.Detail != "held back by the brake: nothing is repaired before somebody confirms it" {
			t.Errorf("%+v (-want +got):\n%s", r.Findings[0], diff)
		}
	}
	if r := b.check(checker.Request{}); r.Braked == "" {
		t.Error("a look does not say that a repair would be held back")
	}
	r := b.check(checker.Request{Repair: true, Confirm: true})
	if diff := cmp.Diff(map[checker.State]int{checker.Done: 100, checker.Planned: 500}, statesOf(r)); diff != "" || r.Braked != "" || undone.Load() != 100 {
		t.Errorf("confirmed, %d undone, braked: %q (-want +got):\n%s", undone.Load(), r.Braked, diff)
	}
}

// What is few, by number or by share, is repaired at once. What is more than a report lists counts, too.
func TestBrakeLetsFewPass(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		orders, wrong, floor int
		share                float64
		braked               bool
	}{
		{20, 20, 0, 0, false},
		{21, 21, 0, 0, true},
		{300, 30, 1, 0.1, false},
		{300, 31, 1, 0.1, true},
		{1500, 1100, 1, 0.7, true}, // 1000 are kept, fewer than 1050
	} {
		b := setup(t)
		ids := idsOf(tt.orders, time.Second)
		b.fill(ids...)
		b.exec(`UPDATE orders SET status = 'CANCELLED' WHERE id = ANY($1)`, ids[:tt.wrong])
		b.exec(`UPDATE payments SET status = 'REFUNDED' WHERE order_id = ANY($1)`, ids[:tt.wrong])
		b.cfg.BrakeFloor, b.cfg.BrakeShare = tt.floor, tt.share
		undone := b.undoes()
		r := b.check(checker.Request{Repair: true})
		if want := map[bool]int{false: tt.wrong}[tt.braked]; (r.Braked != "") != tt.braked || int(undone.Load()) != want {
			t.Errorf("%d of %d: %d undone, braked: %q", tt.wrong, tt.orders, undone.Load(), r.Braked)
		}
	}
}

// A service that finds most of its own rows broken has lost something that no count brings back. Orders are not
// repaired by it either.
func TestBrakeHoldsForRules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 30 {
		b.rules[payments] = append(b.rules[payments], facts.Breach{Kind: "balance-mismatch", Subject: fmt.Sprintf("u-%d", i)})
	}
	b.fill(hourAgo(1))
	b.exec(`DELETE FROM orders`)
	var asked atomic.Int64
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		answer(w, map[string]string{})
	})
	r := b.check(checker.Request{Repair: true})
	if asked.Load() != 0 || !strings.HasPrefix(r.Braked, "30 rules of the services' own that are broken are to be repaired") {
		t.Errorf("%d asked, braked: %q", asked.Load(), r.Braked)
	}
	b.cfg.MaxRepairs = 25
	b.exec(`DELETE FROM payments`)
	b.exec(`DELETE FROM reservations`)
	if r := b.check(checker.Request{Repair: true, Confirm: true}); asked.Load() != 25 || statesOf(r)[checker.Planned] != 5 {
		t.Errorf("confirmed: %d asked; %v", asked.Load(), statesOf(r))
	}
}
