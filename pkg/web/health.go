package web

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/internal/quiet"
)

// checkTimeout bounds a readiness check; who asks has usually given up soon after.
const checkTimeout = 2 * time.Second

type health struct {
	mu       sync.Mutex
	draining bool
	hold     *check // nil: started
	checks   []check
	faults   quiet.Log
}

type check struct {
	name string
	run  func(context.Context) error
}

// Ready adds a condition of readiness, such as a database that answers. run is called for each request of /readyz,
// concurrently with the others and itself, with a context of two seconds. What its error says is shown to whoever asks,
// so it must hold no secret. An error that is [Degraded] is shown as well, but leaves the service ready.
func (s *Server) Ready(name string, run func(context.Context) error) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.checks = append(s.health.checks, check{name, run})
}

// Degraded marks a readiness check's error as one with which requests can be served: /readyz shows it and says ready.
func Degraded(err error) error {
	if err == nil {
		return nil
	}
	return &degraded{err}
}

type degraded struct{ error }

func (d *degraded) Unwrap() error { return d.error }

// Hold keeps requests out until [Server.Release]: each gets a 503 that asks to come again and tells the error of why,
// under the name, as /readyz does; /healthz and /metrics answer. It is called before requests are served, and again
// when the reason changes. why is called concurrently and must not block.
func (s *Server) Hold(name string, why func() error) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.hold = &check{name, func(context.Context) error { return why() }}
}

// Release ends [Server.Hold]. Everything must have been registered by now.
func (s *Server) Release() {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.hold = nil
}

// SetReady false makes /readyz say so whatever the checks find, so that no new work is sent here; [Server.Serve] does
// it when it stops. Requests are still served.
func (s *Server) SetReady(ready bool) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.draining = !ready
}

func (h *health) holding() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold != nil
}

// held is the answer to every request while requests are kept out, and nil otherwise.
func (h *health) held(ctx context.Context) *huma.ErrorModel {
	h.mu.Lock()
	hold := h.hold
	h.mu.Unlock()
	if hold == nil {
		return nil
	}
	return notReady(Field(hold.name, hold.run(ctx).Error(), nil))
}

// notReady is the answer of a service that cannot serve yet, or not now.
func notReady(reasons ...*huma.ErrorDetail) *huma.ErrorModel {
	return Problem(http.StatusServiceUnavailable, TypeNotReady, "Not ready", summary(reasons), reasons...)
}

func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) { s.writeStatus(w, "ok", nil) }

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	s.health.mu.Lock()
	checks, draining := s.health.checks, s.health.draining
	s.health.mu.Unlock()
	if draining {
		writeProblem(w, Problem(http.StatusServiceUnavailable, TypeNotReady, "Not ready", "the service is stopping"))
		return
	}
	if problem := s.health.held(r.Context()); problem != nil {
		w.Header().Set("Retry-After", "1")
		writeProblem(w, problem)
		return
	}
	failed, impaired := s.runChecks(r.Context(), checks)
	if len(failed) > 0 {
		writeProblem(w, notReady(failed...))
		return
	}
	s.writeStatus(w, "ready", impaired)
}

// runChecks runs all checks at once and returns what fails, and what is degraded, each by its name with the reason.
func (s *Server) runChecks(ctx context.Context, checks []check) (failed []*huma.ErrorDetail, impaired map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	errs := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { errs[i] = c.run(ctx) })
	}
	wg.Wait()

	for i, c := range checks {
		err := errs[i]
		var mild *degraded
		switch {
		case err == nil:
			s.health.faults.Over(ctx, s.log, c.name, "ready again", "check", c.name)
		case errors.As(err, &mild):
			if impaired == nil {
				impaired = map[string]string{}
			}
			impaired[c.name] = reasonOf(err)
			s.health.faults.Over(ctx, s.log, c.name, "ready again", "check", c.name)
		default:
			s.health.faults.Warn(ctx, s.log, c.name, "not ready", "check", c.name, "error", err)
			failed = append(failed, Field(c.name, reasonOf(err), nil))
		}
	}
	return failed, impaired
}

// reasonOf is what an error says, as far as a person reads it.
func reasonOf(err error) string {
	const most = 500 // bytes
	if text := err.Error(); len(text) > most {
		return text[:most] + "..."
	}
	return err.Error()
}

// status is the answer of /healthz, and of /readyz when it is.
type status struct {
	Service  string            `json:"service"`
	Status   string            `json:"status"`
	Version  string            `json:"version"`
	Degraded map[string]string `json:"degraded,omitempty"`
}

func (s *Server) writeStatus(w http.ResponseWriter, text string, impaired map[string]string) {
	writeJSON(w, http.StatusOK, "application/json", status{s.cfg.Service, text, s.cfg.Version, impaired})
}
