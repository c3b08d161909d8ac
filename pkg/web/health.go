package web

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// checkTimeout bounds a readiness check; who asks has usually given up soon after.
const checkTimeout = 2 * time.Second

type health struct {
	mu       sync.Mutex
	draining bool
	checks   []check
	failing  map[string]bool
}

type check struct {
	name string
	run  func(context.Context) error
}

// Ready adds a condition of readiness, such as a database that answers. check is called for each request of /readyz,
// concurrently with the others, with a context of two seconds.
func (s *Server) Ready(name string, run func(context.Context) error) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.checks = append(s.health.checks, check{name, run})
}

// SetReady false makes /readyz say so whatever the checks find, so that no new work is sent here; [Server.Serve] does it when
// it stops. Requests are still served.
func (s *Server) SetReady(ready bool) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.draining = !ready
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) { s.writeStatus(w, "ok") }

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	s.health.mu.Lock()
	checks, draining := s.health.checks, s.health.draining
	s.health.mu.Unlock()
	if draining {
		writeProblem(w, Problem(http.StatusServiceUnavailable, TypeNotReady, "Not ready", "the service is stopping"))
		return
	}
	if failed := s.runChecks(r.Context(), checks); len(failed) > 0 {
		writeProblem(w, Problem(http.StatusServiceUnavailable, TypeNotReady, "Not ready", summary(failed), failed...))
		return
	}
	s.writeStatus(w, "ready")
}

// runChecks runs all checks at once and returns the names of those that fail. Why they fail is for the log, once: the answer
// goes to whoever asks, and is asked for every few seconds.
func (s *Server) runChecks(ctx context.Context, checks []check) []*huma.ErrorDetail {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { errs[i] = c.run(ctx) })
	}
	wg.Wait()

	var failed []*huma.ErrorDetail
	for i, c := range checks {
		s.logCheck(ctx, c.name, errs[i])
		if errs[i] != nil {
			failed = append(failed, Field(c.name, "is not ready; the log says why", nil))
		}
	}
	return failed
}

func (s *Server) logCheck(ctx context.Context, name string, err error) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	switch was := s.health.failing[name]; {
	case err != nil && !was:
		if s.health.failing == nil {
			s.health.failing = map[string]bool{}
		}
		s.health.failing[name] = true
		s.log.LogAttrs(ctx, slog.LevelWarn, "not ready", slog.String("check", name), slog.Any("error", err))
	case err == nil && was:
		delete(s.health.failing, name)
		s.log.LogAttrs(ctx, slog.LevelInfo, "ready again", slog.String("check", name))
	}
}

func (s *Server) writeStatus(w http.ResponseWriter, status string) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{ // the client is gone, nobody is left to tell
		"service": s.cfg.Service, "version": s.cfg.Version, "status": status,
	})
}
