package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are a server's request metrics. A route is the pattern that matched, never the raw path, so their number is fixed.
type metrics struct {
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its handler.",
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
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics": // asked all the time, about the others
		s.mux.ServeHTTP(w, r)
		return
	}
	start := time.Now()
	ctx, traceID := withTrace(r.Context(), r.Header)
	r = r.WithContext(ctx)
	rec := &recorder{ResponseWriter: w}
	rec.Header().Set("X-Trace-Id", traceID)

	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	aborted := s.serveRecovered(rec, r)
	s.observe(rec, r, time.Since(start))
	if aborted {
		panic(http.ErrAbortHandler) // net/http closes the connection: the client must not take half an answer for a whole one
	}
}

// serveRecovered serves r and turns a panic into a 500, or reports that the answer had begun and must be cut off.
func (s *Server) serveRecovered(rec *recorder, r *http.Request) (aborted bool) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) || r.Context().Err() != nil {
			aborted = true // on purpose, or in an attempt to answer a client that has gone
			return
		}
		s.log.LogAttrs(r.Context(), slog.LevelError, "panic in a request", slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		if aborted = rec.status != 0; !aborted {
			writeProblem(rec, internalProblem(rec.Header().Get("X-Trace-Id")))
		}
	}()
	if why := badURL(r.URL); why != "" {
		writeProblem(rec, Problem(http.StatusBadRequest, TypeInvalidRequest, "Invalid request", why))
		return false
	}
	s.mux.ServeHTTP(rec, r)
	return false
}

// badURL says what is wrong with a URL that no handler should see: text that PostgreSQL could not store or compare.
func badURL(u *url.URL) string {
	if !storable(u.Path) {
		return "the path is not UTF-8 text without NUL"
	}
	if strings.ContainsRune(u.RawQuery, '%') {
		if query, err := url.QueryUnescape(u.RawQuery); err != nil || !storable(query) {
			return "the query is not percent-encoded UTF-8 text without NUL"
		}
	}
	return ""
}

func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

func (s *Server) observe(rec *recorder, r *http.Request, took time.Duration) {
	status := rec.status
	switch {
	case status == 0 && r.Context().Err() == nil:
		status = http.StatusOK // a handler that wrote nothing
	case errors.Is(r.Context().Err(), context.Canceled) && (status == 0 || status >= 500):
		status = statusClientGone
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

// recorder remembers the status of the answer. http.ResponseController reaches the connection through Unwrap.
type recorder struct {
	http.ResponseWriter
	status int // 0: not begun
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

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
