package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/timer"
)

// start is all that a service does before it takes requests. /readyz tells how far it is.
type start struct {
	rt  *Runtime
	svc Service

	mu    sync.Mutex
	doing string // the step in hand
	since time.Time
	fault error // why the last try failed; nil: none has
}

// newStart keeps requests out of the server until the caller releases it.
func newStart(rt *Runtime, svc Service) *start {
	st := &start{rt: rt, svc: svc}
	st.step("database", "waiting for "+pg.Addr(rt.Pool))
	return st
}

// step begins a step, under the name that /readyz tells.
func (st *start) step(name, doing string) {
	st.mu.Lock()
	st.doing, st.since, st.fault = doing, time.Now(), nil
	st.mu.Unlock()
	st.rt.Web.Hold(name, st.why)
}

// why is the reason that requests are not served yet.
func (st *start) why() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	text := fmt.Sprintf("%s for %d s", st.doing, int(time.Since(st.since).Seconds()))
	if st.fault != nil {
		text += ": " + pg.Reason(st.fault)
	}
	return errors.New(text)
}

// run waits for the database, brings its schema up to date, and sets the service up. It ends early with ctx.
func (st *start) run(ctx context.Context) error {
	addr := pg.Addr(st.rt.Pool)
	var waiting quiet.Log
	failed := func(err error) {
		st.mu.Lock()
		st.fault = err
		st.mu.Unlock()
		waiting.Warn(ctx, st.rt.Log, addr, "waiting for database at "+addr, "error", pg.Reason(err))
	}
	if err := pg.Await(ctx, st.rt.Pool, failed); err != nil {
		return fmt.Errorf("%s_DATABASE_URL: %w", strings.ToUpper(st.svc.Name), err)
	}
	waiting.Over(ctx, st.rt.Log, addr, "database answers", "addr", addr)

	st.step("schema", "migrating")
	blocks := append([]pg.Migration{outbox.Migration(), inbox.Migration(), timer.Migration()}, st.svc.Blocks...)
	if err := pg.MigrateNotify(ctx, st.rt.Pool, failed, append(blocks, pg.Migration{Name: st.svc.Name, FS: st.svc.Migrations})...); err != nil {
		return err
	}
	waiting.Over(ctx, st.rt.Log, addr, "database answers", "addr", addr)

	st.step("setup", "setting up")
	if st.svc.Setup != nil {
		if err := st.svc.Setup(st.rt); err != nil {
			return fmt.Errorf("set up %s: %w", st.svc.Name, err)
		}
	}
	return nil
}
