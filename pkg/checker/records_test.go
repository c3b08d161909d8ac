package checker

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func recordsIn(t *testing.T) *records {
	t.Helper()
	return &records{db: pgtest.New(t, "records", func(ctx context.Context, db *pgxpool.Pool) error {
		return pg.Migrate(ctx, db, pg.Migration{Name: "checker", FS: pg.Dir(files, "migrations")})
	})}
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, recordsIn(t).db)
}

// A repair is on record before it is tried, and complete after it.
func TestJournal(t *testing.T) {
	t.Parallel()
	r := recordsIn(t)
	id := uuid.MustParse("01980d2e-0000-7000-8000-000000000001")
	before := &Held{{Service: "order", Name: "order", Fact: &facts.Fact{ID: id, Status: "CONFIRMED", Member: true}}, {Service: "shipping", Name: "shipment"}}
	f := Finding{OrderID: id, Kind: shippedNotConfirmed, Detail: "planted", Repair: Repair{Action: "charge", State: Planned, Before: before}}
	end, err := r.journal(Record{ID: uuid.Max, By: "the test"})(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	states := func(order uuid.UUID) (all []string) {
		t.Helper()
		list, err := r.repairs(t.Context(), order, 1<<40, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			all = append(all, string(one.State)+" by "+one.By+": "+string(one.Kind)+" "+one.Outcome)
			var held Held
			if err := json.Unmarshal(one.Before, &held); err != nil || held.Of("order").Status != "CONFIRMED" {
				t.Errorf("before: %s, %v", one.Before, err)
			}
		}
		return all
	}
	if diff := cmp.Diff([]string{"PLANNED by the test: shipped-not-confirmed "}, states(id)); diff != "" {
		t.Errorf("before it (-want +got):\n%s", diff)
	}
	f.Repair.State, f.Repair.Detail, f.Repair.After = Done, "as new", before
	end(f, f.Repair.After)
	if diff := cmp.Diff([]string{"DONE by the test: shipped-not-confirmed as new"}, states(uuid.Nil)); diff != "" {
		t.Errorf("after it (-want +got):\n%s", diff)
	}
	if other := states(uuid.New()); other != nil {
		t.Errorf("of another order: %v", other)
	}
}

// A checker that starts before the others are ready looks again at once, not only when the next check is due.
func TestLooksAgainSoon(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fill(hourAgo(1))
	b.away.Store(2) // both services are starting
	r := recordsIn(t)
	run := newRunner(b.cfg, Schedule{Every: time.Hour, Window: time.Hour, AllEvery: time.Hour}, r, newMetrics(prometheus.NewRegistry(), b.cfg), slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error)
	go func() { stopped <- run.run(ctx) }()
	patience, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		latest, ok, err := r.latest(patience)
		if err != nil {
			t.Fatal(err)
		}
		if ok && latest.Failed == nil { // the first one could look at the audits alone
			if latest.Checked != 1 || !latest.Since.IsZero() {
				t.Errorf("the first check is %+v, want one of everything", latest)
			}
			break
		}
	}
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// What the API says before anything was checked, when nothing can be asked, and to requests that make no sense.
func TestAPI(t *testing.T) {
	t.Parallel()
	r := recordsIn(t)
	ctx, stop := context.WithCancel(t.Context())
	nobody := httptest.NewServer(http.NotFoundHandler())
	nobody.Close()
	cfg := Config{Services: []Service{{Name: "order", URL: nobody.URL, Set: "confirmed"}, {Name: "shipping", URL: nobody.URL, Set: "shipped"}}, Rules: []Rule{Equal("x", "order", "shipping")}}
	run := newRunner(cfg, Schedule{}, r, newMetrics(prometheus.NewRegistry(), cfg), nil)
	stopped := make(chan error)
	go func() { stopped <- run.run(ctx) }()
	server := web.New(web.Config{Service: "checker"})
	(&handlers{runner: run, records: r, services: cfg.Services}).register(server.API)
	ask := func(method, path, body string, status int, says string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if w.Code != status || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s %s %s: %d %s, want %d and %s", method, path, body, w.Code, w.Body, status, says)
		}
	}
	ask(http.MethodGet, "/checks/latest", "", 404, "nothing was checked yet")
	ask(http.MethodPost, "/checks", `{}`, 503, "cannot-look")
	ask(http.MethodPost, "/checks", `{"orderId":"1"}`, 422, "body.orderId")
	ask(http.MethodPost, "/checks", `{"orderId":"01980d2e-0000-7000-8000-000000000001","since":"2026-01-01T00:00:00Z"}`, 422, "body.since")
	ask(http.MethodPost, "/checks", `{"by":"a\nb"}`, 422, "body.by")
	ask(http.MethodGet, "/repairs?cursor=x!", "", 422, "query.cursor")
	ask(http.MethodGet, "/repairs", "", 200, `"repairs":[]`)
	stop()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	ask(http.MethodPost, "/checks", `{}`, 503, "unavailable") // it stops
}
