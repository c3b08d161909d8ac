package checker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
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
	b.cfg.Letters = func(context.Context) ([]Letter, error) {
		return []Letter{{Topic: "order.dlq", Key: "a", Reason: "not JSON"}}, nil
	}
	b.cfg.Redrive = func(context.Context, []Letter) error { note("redrive"); return nil }
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

// A part that cannot look keeps no other from it. The check is no clean one, says which, and repairs nothing that depends on what it does not know.
func TestPartsFailByThemselves(t *testing.T) {
	t.Parallel()
	all := []Kind{BalanceMismatch, DeadLetters, ReservedForCancelled, StockMismatch}
	noKafka := func(int) (facts.Flow, error) { return facts.Flow{}, errors.New("no Kafka") }
	for _, tt := range []struct {
		name     string
		plant    func(b *bundle)
		failed   Part
		says     string
		kinds    []Kind
		repaired []string
	}{
		{"nothing fails", func(*bundle) {}, "", "", all, []string{"accounts", "reservations", "products", "redrive"}},
		{"an audit that has nothing to do with it", func(b *bundle) { b.blind[orders] = true }, AuditOf("order"), "order: ", all, []string{"accounts", "redrive"}},
		{"the audit of payment", func(b *bundle) { b.blind[payments] = true }, AuditOf("payment"), "payment: ", []Kind{DeadLetters, ReservedForCancelled, StockMismatch}, []string{"redrive"}},
		{"the audit of inventory", func(b *bundle) { b.blind[reservations] = true }, AuditOf("inventory"), "inventory: ", []Kind{BalanceMismatch, DeadLetters, ReservedForCancelled}, []string{"accounts", "redrive"}},
		{"the comparison", func(b *bundle) { b.flows = []func(int) (facts.Flow, error){noKafka} }, PartOrders, "503", []Kind{BalanceMismatch, DeadLetters, StockMismatch}, []string{"accounts", "redrive"}},
		{
			"dead letters", func(b *bundle) {
				b.cfg.Letters = func(context.Context) ([]Letter, error) { return nil, errors.New("no Kafka") }
			}, PartLetters, "no Kafka", []Kind{BalanceMismatch, ReservedForCancelled, StockMismatch}, []string{"accounts", "reservations", "products"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			repaired := b.damage()
			tt.plant(b)
			r, err := New(b.cfg).Check(t.Context(), Request{Repair: true})
			var kinds []Kind
			for _, f := range r.Findings {
				if kinds = append(kinds, f.Kind); f.Repair.State != Done && !strings.HasPrefix(f.Repair.Detail, "not yet: a part of the check failed") {
					t.Errorf("%s is %+v", f.Kind, f.Repair)
				}
			}
			if diff := cmp.Diff(tt.kinds, kinds, sortKinds); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.repaired, repaired()); diff != "" {
				t.Errorf("repaired (-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.failed != "") || len(r.Looked)+len(r.Failed) != len(Parts())-1 {
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
	want := Repair{Action: actionRecount, State: Planned, Detail: "not yet: orders come first, and some are not repaired"}
	for _, f := range b.check(Request{Repair: true}).Findings {
		if f.Kind == StockMismatch {
			if diff := cmp.Diff(want, f.Repair); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}

// What could be looked at is answered and kept, with the part named that could not; and of each part the age grows from when it looked last, whichever
// instance that was, however often the process starts.
func TestAgesOfParts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(hourAgo(1))
	b.blind[payments] = true
	b.cfg.Letters = func(context.Context) ([]Letter, error) { return nil, nil }
	records := recordsIn(t)
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	now := noon
	m.sight.now, m.sight.began = func() time.Time { return now }, noon
	run := newRunner(b.cfg, schedule{}, records, m, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- run.run(ctx) }()
	server := web.New(web.Config{Service: "checker"})
	(&handlers{runner: run, records: records}).register(server.API)
	post := func() string {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/checks", strings.NewReader(`{}`))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		return w.Body.String()
	}
	ages := func(m *metrics) map[Part]float64 {
		t.Helper()
		families, err := gathered(m)
		if err != nil {
			t.Fatal(err)
		}
		return families
	}
	now = noon.Add(time.Minute)
	if said := post(); !strings.Contains(said, `"failed":[{"part":"audit-payment"`) {
		t.Errorf("answered %s", said)
	}
	if latest, ok, err := records.latest(t.Context()); err != nil || !ok || len(latest.Failed) != 1 {
		t.Errorf("kept: %t %+v, %v", ok, latest, err)
	}
	if n := testutil.ToFloat64(m.checks.WithLabelValues(failed)); n != 1 {
		t.Errorf("%v checks have failed, want one", n)
	}
	if at := testutil.ToFloat64(m.success); at != 0 {
		t.Errorf("the last check that saw everything is of %v", at)
	}
	want := map[Part]float64{PartRecent: 60, PartOrders: 60, AuditOf("order"): 60, AuditOf("inventory"): 60, AuditOf("payment"): 60, PartLetters: 60}
	if diff := cmp.Diff(want, ages(m)); diff != "" { // none has looked before the process began, at noon, as the check did
		t.Errorf("ages (-want +got):\n%s", diff)
	}

	now = noon.Add(time.Hour)
	run.cfg.now = func() time.Time { return now }
	post()
	want = map[Part]float64{PartRecent: 0, PartOrders: 0, AuditOf("order"): 0, AuditOf("inventory"): 0, AuditOf("payment"): 3600, PartLetters: 0}
	if diff := cmp.Diff(want, ages(m), cmpopts.EquateApprox(0, 0.1)); diff != "" {
		t.Errorf("ages an hour later (-want +got):\n%s", diff)
	}

	now = noon.Add(2 * time.Hour)
	other := newMetrics(prometheus.NewRegistry())
	other.sight.now, other.sight.began = func() time.Time { return now }, now
	last, err := records.looks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other.sight.remember(last)
	want = map[Part]float64{PartRecent: 3600, PartOrders: 3600, AuditOf("order"): 3600, AuditOf("inventory"): 3600, AuditOf("payment"): 0, PartLetters: 3600}
	if diff := cmp.Diff(want, ages(other), cmpopts.EquateApprox(0, 0.1)); diff != "" {
		t.Errorf("ages by a process that has just begun (-want +got):\n%s", diff)
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// gathered is what the metrics say of how long ago each part has looked, in seconds.
func gathered(m *metrics) (map[Part]float64, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.sight)
	families, err := registry.Gather()
	ages := map[Part]float64{}
	for _, f := range families {
		if f.GetName() == "converge_check_part_age_seconds" {
			for _, one := range f.GetMetric() {
				ages[Part(one.GetLabel()[0].GetValue())] = one.GetGauge().GetValue()
			}
		}
	}
	return ages, err
}

// What a part has found stays found while it cannot look.
func TestFindingsOfAPartThatFails(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry())
	found := []Finding{{Subject: "u-1", Kind: BalanceMismatch, Repair: Repair{State: Planned}}, {OrderID: uuid.Max, Kind: ConfirmedNotPaid, Repair: Repair{State: Planned}}}
	m.checked(Request{}, Report{At: noon, Watermark: noon, Findings: found, Looked: []Part{PartOrders, AuditOf("payment")}}, nil, noon)
	m.checked(Request{}, Report{At: noon, Watermark: noon, Looked: []Part{PartOrders}, Failed: []Failure{{Part: AuditOf("payment")}}}, errors.New("away"), noon)
	for kind, want := range map[Kind]float64{BalanceMismatch: 1, ConfirmedNotPaid: 0} {
		if n := testutil.ToFloat64(m.findings.WithLabelValues(scopeAll, string(kind))); n != want {
			t.Errorf("%v of %s, want %v", n, kind, want)
		}
	}
}
