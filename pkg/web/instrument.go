package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are a server's request metrics. A route is the pattern that matched, never the raw path, so their number is
// fixed.
type metrics struct {
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its handler, without what it waited on purpose.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route", "status"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_requests_in_flight",
			Help: "Requests that are being handled.",
		}),
	}
	r.MustRegister(m.duration, m.inFlight)
	return m
}

// statusClientGone marks a request whose client went away before the answer. It is seen in metrics and logs only.
const statusClientGone = 499

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.Timeout)
	defer cancel()
	x := s.exchanges.begin(w, r, s.cfg.ReadTimeout)
	cut := true
	defer func() { x.end(cut) }()

	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics": // asked all the time, about the others
		s.mux.ServeHTTP(x, x.request(ctx, r))
		cut = false
		return
	}
	ctx, traceID := withTrace(ctx, r.Header)
	r = x.request(ctx, r)
	x.Header().Set("X-Trace-Id", traceID)

	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	cut = s.serveRecovered(x, r)
	s.observe(x, r, time.Since(start)-x.waited)
	if cut {
		panic(http.ErrAbortHandler) // net/http closes the connection: the client must not take half an answer for a whole one
	}
}

// serveRecovered serves r and turns a panic into a 500, or reports that the answer had begun and must be cut off.
func (s *Server) serveRecovered(x *exchange, r *http.Request) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) || errors.Is(r.Context().Err(), context.Canceled) {
			aborted = true // on purpose, or in an attempt to answer a client that has gone
			return
		}
		s.log.LogAttrs(r.Context(), slog.LevelError, "panic in a request", slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		if aborted = x.status != 0; !aborted {
			writeProblem(x, internalProblem(x.Header().Get("X-Trace-Id")))
		}
	}()
	if problem := badURL(r.URL); problem != nil {
		writeProblem(x, problem)
		return false
	}
	if problem := s.health.held(r.Context()); problem != nil {
		x.Header().Set("Retry-After", "1")
		writeProblem(x, problem)
		return false
	}
	s.mux.ServeHTTP(x, r)
	return false
}

func (s *Server) observe(x *exchange, r *http.Request, took time.Duration) {
	status := x.status
	switch {
	case errors.Is(r.Context().Err(), context.Canceled) && (status == 0 || status >= 500):
		status = statusClientGone
	case status == 0:
		status = http.StatusOK // a handler that wrote nothing
	}
	_, route, _ := strings.Cut(r.Pattern, " ")
	if route == "" {
		route = "unmatched"
	}
	method := r.Method
	if !slices.Contains(methods, method) {
		method = "other" // a client can make up any number of methods
	}
	s.metrics.duration.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())

	level := slog.LevelDebug
	if status >= 500 {
		level = slog.LevelInfo // why it failed has been logged where it did
	}
	s.log.LogAttrs(r.Context(), level, "request", slog.String("method", method), slog.String("route", route),
		slog.String("path", r.URL.Path), slog.Int("status", status), slog.Duration("took", took))
}

var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
}

// serveUnmatched answers what no route took: 405 if the path has other methods, else 404.
func (s *Server) serveUnmatched(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for _, method := range methods {
		if _, pattern := s.mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); pattern != "/" {
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 {
		writeProblem(w, NotFound("there is nothing at %s", r.URL.Path))
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	writeProblem(w, Problem(http.StatusMethodNotAllowed, TypeMethodNotAllowed, "Method not allowed",
		r.URL.Path+" takes "+strings.Join(allow, ", ")))
}
