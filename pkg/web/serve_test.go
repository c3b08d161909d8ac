package web_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/converge-dev/converge/pkg/web"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	var broken error
	s.Ready("database", func(ctx context.Context) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a check runs without a deadline")
		}
		return broken
	})
	s.Ready("kafka", func(context.Context) error { return nil })

	get := func(path string, want int) *http.Response {
		t.Helper()
		resp := do(t, s, "GET", path, "", "")
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
		return resp
	}
	body, _ := io.ReadAll(get("/readyz", 200).Body)
	if want := `{"service":"order","status":"ready","version":"1.2.3"}`; strings.TrimSpace(string(body)) != want {
		t.Errorf("ready says %s, want %s", body, want)
	}

	broken = errors.New("host db.internal is gone")
	for range 3 {
		p := readProblem(t, get("/readyz", 503))
		if len(p.Errors) != 1 || p.Errors[0].Location != "database" || !strings.Contains(p.Errors[0].Message, "db.internal") {
			t.Errorf("want the check's name and its reason: %+v", p)
		}
	}
	get("/healthz", 200)
	if n := strings.Count(s.log.String(), "db.internal"); n != 1 {
		t.Errorf("the reason is logged %d times, want once:\n%s", n, s.log)
	}

	broken = nil
	get("/readyz", 200)
	if !strings.Contains(s.log.String(), "ready again") {
		t.Errorf("the log does not say that it is over:\n%s", s.log)
	}

	s.SetReady(false)
	if p := readProblem(t, get("/readyz", 503)); p.Type != web.TypePrefix+web.TypeNotReady {
		t.Errorf("type %s", p.Type)
	}
	get("/healthz", 200)
	s.SetReady(true)
	get("/readyz", 200)
}

func TestMetricsByRoute(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := setup(t, web.Config{Registry: registry})
	for _, id := range []string{someID, "01980d2e-7c5b-7d3a-9f00-000000000000"} {
		do(t, s, "POST", "/orders/"+id, "", goodBody)
	}
	do(t, s, "POST", "/orders/"+someID, "", "{}")
	do(t, s, "GET", "/nowhere/1", "", "")
	do(t, s, "BREW", "/nowhere/2", "", "")
	do(t, s, "GET", "/healthz", "", "")

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, f := range families {
		if f.GetName() != "http_request_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got[strings.Join(labels, " ")] = m.GetHistogram().GetSampleCount()
		}
	}
	want := map[string]uint64{"POST /orders/{id} 202": 2, "POST /orders/{id} 422": 1, "GET unmatched 404": 1, "other unmatched 404": 1}
	for key, n := range want {
		if got[key] != n {
			t.Errorf("%s: counted %d, want %d", key, got[key], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("counted %v, want %v", got, want)
	}

	exposed, _ := io.ReadAll(do(t, s, "GET", "/metrics", "", "").Body)
	if line := `http_request_duration_seconds_count{method="POST",route="/orders/{id}",status="202"} 2`; !strings.Contains(string(exposed), line) {
		t.Errorf("/metrics lacks %s", line)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metric names: %v %v", problems, err)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	var seen trace.SpanContext
	s.Handle("GET /trace", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = trace.SpanContextFromContext(r.Context())
	}))
	get := func(traceparent string) string {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/trace", nil)
		r.Header.Set("Traceparent", traceparent)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Header().Get("X-Trace-Id")
	}

	const traceID, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	if id := get("00-" + traceID + "-" + parent + "-00"); id != traceID || seen.TraceID().String() != traceID {
		t.Errorf("the caller's trace is not kept: header %s, context %s", id, seen.TraceID())
	}
	if seen.SpanID().String() == parent || !seen.IsValid() || seen.IsSampled() {
		t.Errorf("want a span of its own with the caller's flags, got %v %v", seen.SpanID(), seen.TraceFlags())
	}
	first := get("")
	if !seen.IsValid() || !seen.IsSampled() || seen.TraceID().String() != first {
		t.Errorf("no trace of its own: %+v, header %s", seen, first)
	}
	if second := get("00-garbage"); second == first {
		t.Errorf("two requests share the trace %s", second)
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	resp := do(t, s, "GET", "/openapi.json", "", "")
	body, _ := io.ReadAll(resp.Body)
	for _, want := range []string{`"openapi":"3.1.0"`, `"/orders/{id}"`, `"format":"uuid"`, `"application/problem+json"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("the description lacks %s:\n%s", want, body)
		}
	}
	if resp := do(t, s, "GET", "/docs", "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("/docs: %d, want none: its scripts would come from another host", resp.StatusCode)
	}
}

func TestListenNamesTheSetting(t *testing.T) {
	t.Parallel()
	ln, err := web.Listen("127.0.0.1:0", "ORDER_ADDR")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for addr, why := range map[string]string{
		ln.Addr().String(): "is in use by another program",
		"192.0.2.1:80":     "an address of this machine",
	} {
		_, err := web.Listen(addr, "ORDER_ADDR")
		if err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "set ORDER_ADDR to") || !strings.Contains(err.Error(), why) {
			t.Errorf("listen on %s: %v", addr, err)
		}
	}
}

// serving is a server on a port of its own, and what its Serve returned.
func serving(t *testing.T, s server) (base string, stop context.CancelFunc, served <-chan error) {
	t.Helper()
	ln, err := web.Listen("127.0.0.1:0", "TEST_ADDR")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(stop)
	return "http://" + ln.Addr().String(), stop, done
}

func get(t *testing.T, url string) (int, error) {
	t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func TestServeStopsGracefully(t *testing.T) {
	s := setup(t, web.Config{Drain: 300 * time.Millisecond, Grace: time.Minute})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	started, finish := make(chan struct{}), make(chan struct{})
	s.Handle("GET /slow", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-finish
		if err := r.Context().Err(); err != nil {
			t.Errorf("the stop ended a running request's context: %v", err)
		}
	}))
	base, stop, served := serving(t, s)

	slow := make(chan error, 1)
	go func() {
		status, err := get(t, base+"/slow")
		if err == nil && status != http.StatusOK {
			err = errors.New(http.StatusText(status))
		}
		slow <- err
	}()
	<-started
	stop()

	// It says so first, while it still answers; then it takes nothing more, while the running request goes on.
	saidSo := false
	for deadline := time.Now().Add(10 * time.Second); ; {
		status, err := get(t, base+"/readyz")
		saidSo = saidSo || status == http.StatusServiceUnavailable
		if err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("still accepts requests")
		}
	}
	if !saidSo {
		t.Error("stopped listening without having said that it is not ready")
	}
	select {
	case err := <-served:
		t.Fatalf("Serve returned %v before the running request ended", err)
	default:
	}
	close(finish)
	if err := <-slow; err != nil {
		t.Errorf("the running request failed: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v", err)
	}
}

func TestServeCutsOffWhatExceedsItsGrace(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{Grace: 10 * time.Millisecond})
	started := make(chan struct{})
	s.Handle("GET /endless", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
	}))
	base, stop, served := serving(t, s)
	go func() { _, _ = get(t, base+"/endless") }()
	<-started
	stop()
	if err := <-served; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Serve returned %v, want that requests still ran", err)
	}
}

func TestServeReportsABrokenListener(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := s.Serve(t.Context(), ln); err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("Serve returned %v, want an error that names the address", err)
	}
}

// A 2 MiB body is answered and not just cut off, also on a real connection and with the client's usual 100-continue.
func TestLargeBodyOverTheWire(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	base, _, _ := serving(t, s)
	for _, expect := range []string{"", "100-continue"} {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", base+"/orders/"+someID, strings.NewReader(strings.Repeat(" ", 2<<20)))
		r.Header.Set("Expect", expect)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if p := readProblem(t, resp); p.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("expect %q: %+v", expect, p)
		}
		resp.Body.Close()
	}
}

// Before a service has started it answers who asks how it is, and tells everybody else to come again.
func TestHold(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	reason := "waiting for 127.0.0.1:5440 for 12 s: connection refused"
	s.Hold("database", func() error { return errors.New(reason) })
	for _, path := range []string{"/readyz", "/orders", "/openapi.json", "/nowhere"} {
		resp := do(t, s, "GET", path, "", "")
		p := readProblem(t, resp)
		if p.Status != 503 || p.Type != web.TypePrefix+web.TypeNotReady || p.Detail != "database: "+reason || len(p.Errors) != 1 || p.Errors[0].Location != "database" {
			t.Errorf("%s: %+v", path, p)
		}
		if resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
	}
	for _, path := range []string{"/healthz", "/metrics"} {
		if resp := do(t, s, "GET", path, "", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	s.Release()
	for _, path := range []string{"/readyz", "/orders"} {
		if resp := do(t, s, "GET", path, "", ""); resp.StatusCode != http.StatusOK {
			t.Errorf("%s after the release: %d", path, resp.StatusCode)
		}
	}
}

// What a service can do without is shown, and does not take it out of service.
func TestDegraded(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	kafka := errors.New("broker 127.0.0.1:9092 refuses connections")
	s.Ready("topics", func(context.Context) error { return web.Degraded(kafka) })
	resp := do(t, s, "GET", "/readyz", "", "")
	body, _ := io.ReadAll(resp.Body)
	if want := `{"service":"order","status":"ready","version":"1.2.3","degraded":{"topics":"` + kafka.Error() + `"}}`; resp.StatusCode != 200 || strings.TrimSpace(string(body)) != want {
		t.Errorf("%d %s, want 200 %s", resp.StatusCode, body, want)
	}
	kafka = nil
	body, _ = io.ReadAll(do(t, s, "GET", "/readyz", "", "").Body)
	if strings.Contains(string(body), "degraded") {
		t.Errorf("it is over, and it says %s", body)
	}
}
