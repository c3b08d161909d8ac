package checker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// damage plants something that each part of a check finds, and notes what is repaired of it.
func (b *bundle) damage() (repaired func() []string) {
	b.Helper()
	b.put(hourAgo(1), "CANCELLED", "RESERVED", "REFUNDED")
	b.rules[reservations] = []facts.Breach{{Kind: "stock-mismatch", Subject: "p-1"}}
	b.rules[payments] = []facts.Breach{{Kind: "balance-mismatch", Subject: "u-1"}}
	var mu sync.Mutex
	var calls []string
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, what)
	}
	b.cfg.Letters = func(context.Context) ([]checker.Letter, error) {
		return []checker.Letter{{Topic: "order.dlq", Key: "a", Reason: "not JSON"}}, nil
	}
	b.cfg.Redrive = func(context.Context, []checker.Letter) error { note("redrive"); return nil }
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note(strings.Split(r.URL.Path, "/")[1])
		answer(w, facts.Fact{ID: hourAgo(1), Status: "RELEASED", ChangedAt: noon})
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		all := calls
		calls = nil
		return all
	}
}

// A part that cannot look keeps no other from it. The check is no clean one, says which, and repairs nothing that
// depends on what it does not know.
func TestPartsFailByThemselves(t *testing.T) {
	t.Parallel()
	all := []checker.Kind{BalanceMismatch, checker.DeadLetters, ReservedForCancelled, StockMismatch}
	noKafka := func(int) (facts.Flow, error) { return facts.Flow{}, errors.New("no Kafka") }
	for _, tt := range []struct {
		name     string
		plant    func(b *bundle)
		failed   checker.Part
		says     string
		kinds    []checker.Kind
		repaired []string
	}{
		{"nothing fails", func(*bundle) {}, "", "", all, []string{"accounts", "reservations", "products", "redrive"}},
		{"an audit that has nothing to do with it", func(b *bundle) { b.blind[orders] = true }, checker.AuditOf("order"), "order: ", all, []string{"accounts", "redrive"}},
		{"the audit of payment", func(b *bundle) { b.blind[payments] = true }, checker.AuditOf("payment"), "payment: ", []checker.Kind{checker.DeadLetters, ReservedForCancelled, StockMismatch}, []string{"redrive"}},
		{"the audit of inventory", func(b *bundle) { b.blind[reservations] = true }, checker.AuditOf("inventory"), "inventory: ", []checker.Kind{BalanceMismatch, checker.DeadLetters, ReservedForCancelled}, []string{"accounts", "redrive"}},
		{"the comparison", func(b *bundle) { b.flows = []func(int) (facts.Flow, error){noKafka} }, checker.PartOrders, "503", []checker.Kind{BalanceMismatch, checker.DeadLetters, StockMismatch}, []string{"accounts", "redrive"}},
		{
			"dead letters", func(b *bundle) {
				b.cfg.Letters = func(context.Context) ([]checker.Letter, error) { return nil, errors.New("no Kafka") }
			}, checker.PartLetters, "no Kafka", []checker.Kind{BalanceMismatch, ReservedForCancelled, StockMismatch}, []string{"accounts", "reservations", "products"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			repaired := b.damage()
			tt.plant(b)
			r, err := newChecker(b.cfg).Check(t.Context(), checker.Request{Repair: true})
			var kinds []checker.Kind
			for _, f := range r.Findings {
				if kinds = append(kinds, f.Kind); f.Repair.State != checker.Done && !strings.HasPrefix(f.Repair.Detail, "not yet: a part of the check failed") {
					t.Errorf("%s is %+v", f.Kind, f.Repair)
				}
			}
			if diff := cmp.Diff(tt.kinds, kinds, sortKinds); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.repaired, repaired()); diff != "" {
				t.Errorf("repaired (-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.failed != "") || len(r.Looked)+len(r.Failed) != 5 {
				t.Errorf("%v; looked at %v, not at %v", err, r.Looked, r.Failed)
			}
			if tt.failed != "" && (len(r.Failed) != 1 || r.Failed[0].Part != tt.failed || !strings.Contains(r.Failed[0].Detail, tt.says)) {
				t.Errorf("failed: %+v, want %s that says %q", r.Failed, tt.failed, tt.says)
			}
		})
	}
}

// Stock is not counted anew while an order that lacks its reservation still does: its units would look free.
func TestStockIsCountedAfterOrders(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(hourAgo(1), "CONFIRMED", "", "COMPLETED")
	b.rules[reservations] = []facts.Breach{{Kind: "stock-mismatch", Subject: "p-1"}}
	b.extra = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusBadGateway) })
	want := checker.Repair{Action: "recount", State: checker.Planned, Detail: "not yet: orders come first, and some are not repaired"}
	for _, f := range b.check(checker.Request{Repair: true}).Findings {
		if f.Kind == StockMismatch {
			if diff := cmp.Diff(want, f.Repair); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}
