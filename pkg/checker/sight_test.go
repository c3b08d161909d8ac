package checker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/web"
)

// What could be looked at is answered and kept, with the part named that could not; and of each part the age grows from
// when it looked last, whichever instance that was, however often the process starts.
func TestAgesOfParts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(hourAgo(1))
	b.blind[shipping] = true
	b.cfg.Letters = func(context.Context) ([]Letter, error) { return nil, nil }
	records := recordsIn(t)
	registry := prometheus.NewRegistry()
	m := newMetrics(registry, b.cfg)
	now := noon
	m.sight.now, m.sight.began = func() time.Time { return now }, noon
	run := newRunner(b.cfg, Schedule{}, records, m, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- run.run(ctx) }()
	server := web.New(web.Config{Service: "checker"})
	(&handlers{runner: run, records: records, services: b.cfg.Services}).register(server.API)
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
	if said := post(); !strings.Contains(said, `"failed":[{"part":"audit-shipping"`) {
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
	want := map[Part]float64{PartRecent: 60, PartOrders: 60, AuditOf("order"): 60, AuditOf("shipping"): 60, PartLetters: 60}
	if diff := cmp.Diff(want, ages(m)); diff != "" { // none has looked before the process began, at noon, as the check did
		t.Errorf("ages (-want +got):\n%s", diff)
	}

	now = noon.Add(time.Hour)
	run.cfg.Now = func() time.Time { return now }
	post()
	want = map[Part]float64{PartRecent: 0, PartOrders: 0, AuditOf("order"): 0, AuditOf("shipping"): 3600, PartLetters: 0}
	if diff := cmp.Diff(want, ages(m), cmpopts.EquateApprox(0, 0.1)); diff != "" {
		t.Errorf("ages an hour later (-want +got):\n%s", diff)
	}

	now = noon.Add(2 * time.Hour)
	other := newMetrics(prometheus.NewRegistry(), b.cfg)
	other.sight.now, other.sight.began = func() time.Time { return now }, now
	last, err := records.looks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other.sight.remember(last)
	want = map[Part]float64{PartRecent: 3600, PartOrders: 3600, AuditOf("order"): 3600, AuditOf("shipping"): 0, PartLetters: 3600}
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
	b := setup(t)
	m := newMetrics(prometheus.NewRegistry(), b.cfg)
	found := []Finding{{Subject: "u-1", Kind: parcelMismatch, Repair: Repair{State: Planned}}, {OrderID: uuid.Max, Kind: shippedNotConfirmed, Repair: Repair{State: Planned}}}
	m.checked(Request{}, Report{At: noon, Watermark: noon, Findings: found, Looked: []Part{PartOrders, AuditOf("shipping")}}, nil, noon)
	m.checked(Request{}, Report{At: noon, Watermark: noon, Looked: []Part{PartOrders}, Failed: []Failure{{Part: AuditOf("shipping")}}}, errors.New("away"), noon)
	for kind, want := range map[Kind]float64{parcelMismatch: 1, shippedNotConfirmed: 0} {
		if n := testutil.ToFloat64(m.findings.WithLabelValues(scopeAll, string(kind))); n != want {
			t.Errorf("%v of %s, want %v", n, kind, want)
		}
	}
}
