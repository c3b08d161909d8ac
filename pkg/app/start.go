package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
		return st.occupied(err)
	}
	waiting.Over(ctx, st.rt.Log, addr, "database answers", "addr", addr)

	st.step("setup", "setting up")
	registerChoreography(st.rt.Web.API, st.svc.Service)
	if st.svc.Setup != nil {
		if err := st.svc.Setup(st.rt); err != nil {
			return fmt.Errorf("set up %s: %w", st.svc.Name, err)
		}
	}
	return nil
}

// occupied says what to do where a table that the service is to create is there: another service has it. Services whose
// tables have different names can share a database, outbox and inbox included.
func (st *start) occupied(err error) error {
	const duplicateTable = "42P07"
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != duplicateTable {
		return err
	}
	cfg, setting := st.rt.Pool.Config().ConnConfig, strings.ToUpper(st.svc.Name)+"_DATABASE_URL"
	return fmt.Errorf("%w: database %s at %s has it from another service; "+
		"let %s name a database of %s's own, or a schema, as in ?search_path=%s", err, cfg.Database, pg.Addr(st.rt.Pool), setting, st.svc.Name, st.svc.Name)
}
