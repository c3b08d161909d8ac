package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Listen opens the address that a setting gave. The error of an address that cannot be had names the setting to change.
func Listen(addr, setting string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s is in use by another program: stop that, or set %s to another address: %w", addr, setting, err)
	default:
		return nil, fmt.Errorf("cannot listen on %s: set %s to an address of this machine: %w", addr, setting, err)
	}
}

// Serve answers requests on ln until ctx ends, and closes ln. It then says that it is not ready, goes on for
// Config.Drain, accepts nothing more and waits up to Config.Grace for running requests, whose contexts outlive ctx.
// Clients that are slow to send or to read are cut off sooner. It returns nil after such a stop, and an error if it had
// to cut off handlers that ran, or could not serve. Requests have the values of ctx.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: min(5*time.Second, s.cfg.ReadTimeout, s.cfg.Grace/2), // who connects and says nothing must not hold up the stop
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.ReadTimeout + s.cfg.Timeout + 5*time.Second, // longer than what makes a proper answer of lateness
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	srv.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) } // requests in hand outlive the stop
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}

	s.SetReady(false)
	if s.cfg.Drain > 0 && !s.health.holding() { // nobody sends work to one that never was ready
		select {
		case <-time.After(s.cfg.Drain):
		case err := <-served:
			return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
		}
	}
	now := time.Now()
	s.exchanges.stop(now.Add(min(time.Second, s.cfg.Grace/4)), now.Add(s.cfg.Grace-s.cfg.Grace/8))
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	err := srv.Shutdown(grace)
	if err != nil {
		_ = srv.Close() // what matters is that requests did not end in time
		err = fmt.Errorf("stop HTTP on %s: requests still ran after %s: %w", ln.Addr(), s.cfg.Grace, err)
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return err
}
