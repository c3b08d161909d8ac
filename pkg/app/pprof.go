package app

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/converge-dev/converge/pkg/web"
)

// profileTimeout is the longest time that a profile may be taken over.
const profileTimeout = 5 * time.Minute

// servePprof serves Go's profiles on a listener of their own, so that they are never published with the API. The stop
// ends a profile that is being taken.
func servePprof(ctx context.Context, ln net.Listener, log *slog.Logger) error {
	server := web.New(web.Config{Service: "profiles", Version: Version(), Log: log, Timeout: profileTimeout, Grace: time.Second})
	handle := func(pattern string, h http.HandlerFunc) {
		server.Handle(pattern, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			h(w, r.WithContext(running))
		}))
	}
	handle("/debug/pprof/", pprof.Index)
	handle("/debug/pprof/profile", pprof.Profile)
	handle("/debug/pprof/symbol", pprof.Symbol)
	handle("/debug/pprof/trace", pprof.Trace)
	return server.Serve(ctx, ln)
}
