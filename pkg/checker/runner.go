package checker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/clock"
)

// Schedule says when to check without being asked.
type Schedule struct {
	Every    time.Duration // how often the recent orders are checked; 0: only when asked
	Window   time.Duration // how old those are
	AllEvery time.Duration // how often everything is, the first time at the start
	Repair   bool          // repair what is found, and not only tell
}

// Record is a check with its id, as it is stored.
type Record struct {
	ID     uuid.UUID `json:"checkId"`
	By     string    `json:"by" doc:"who asked for it"`
	Repair bool      `json:"repair" doc:"whether it was to repair what it finds"`
	Report
}

// runner makes the checks that are asked for, and those that are due, one after the other; checks of one order do not
// wait for them. It owns them: at the stop they are cut off, between two commands, and the next check goes on from
// there.
type runner struct {
	cfg     Config
	plan    Schedule
	records *records
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time

	jobs    chan job
	stopped chan struct{} // closed when no job is taken any more
	wide    chan struct{} // held by a check of more than one order
}

// job is a check that somebody waits for.
type job struct {
	ctx     context.Context
	request Request
	done    chan<- outcome
}

type outcome struct {
	record Record
	err    error
}

// errStopping says that the service stops.
var errStopping = errors.New("the checker stops")

func newRunner(cfg Config, plan Schedule, records *records, m *metrics, log *slog.Logger) *runner {
	return &runner{
		cfg: cfg, plan: plan, records: records, metrics: m, log: log, now: clock.Now,
		jobs: make(chan job), stopped: make(chan struct{}), wide: make(chan struct{}, 1),
	}
}

// check makes a check and waits for it.
func (r *runner) check(ctx context.Context, request Request) (Record, error) {
	done := make(chan outcome, 1)
	select {
	case r.jobs <- job{ctx, request, done}:
	case <-r.stopped:
		return Record{}, errStopping
	case <-ctx.Done():
		return Record{}, ctx.Err()
	}
	o := <-done // it ends with ctx, or with the runner
	return o.record, o.err
}

// run makes checks until ctx ends, and then returns nil.
func (r *runner) run(ctx context.Context) error {
	var running errgroup.Group
	defer func() {
		close(r.stopped)
		_ = running.Wait() // none returns an error
	}()
	if r.plan.Every > 0 {
		running.Go(func() error { r.periodic(ctx); return nil })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-r.jobs:
			running.Go(func() error {
				jctx, cancel := context.WithCancel(ctx)
				defer cancel()
				defer context.AfterFunc(j.ctx, cancel)()
				record, err := r.do(jctx, j.request)
				if err != nil && ctx.Err() != nil {
					err = errStopping
				}
				j.done <- outcome{record, err}
				return nil
			})
		}
	}
}

// firstRetry is when a check of everything that failed is made again: soon, as services that start together are not
// ready at the same time.
const firstRetry = time.Second

// periodic checks what is due until ctx ends. A check of everything that fails is made again after a pause that
// doubles, and is no shorter than what the check took: the recent orders are checked all the same.
func (r *runner) periodic(ctx context.Context) {
	var nextAll time.Time // when everything is to be checked again
	retry := firstRetry
	for {
		request := Request{Repair: r.plan.Repair, By: "checker"}
		began := r.now()
		all := !began.Before(nextAll)
		if !all {
			request.Since = began.Add(-r.plan.Window)
		}
		record, err := r.bounded(ctx, request)
		ended := r.now()
		switch {
		case ctx.Err() != nil:
			return
		case (err != nil || len(record.Failed) > 0) && all:
			retry = min(max(retry, ended.Sub(began)), r.plan.AllEvery)
			nextAll, retry = ended.Add(retry), 2*retry
		case all:
			nextAll, retry = began.Add(r.plan.AllEvery), firstRetry
		}
		if err != nil {
			r.log.WarnContext(ctx, "check failed, trying again later", "error", err)
		}
		for _, f := range record.Failed {
			r.log.WarnContext(ctx, "a part of the check could not look, trying again later", "check", record.ID, "part", f.Part, "error", f.Detail)
		}
		if n := len(record.Findings) + record.More; n > 0 {
			r.log.WarnContext(ctx, "the services disagree", "check", record.ID, "findings", n, "first", record.Findings[0].String())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(began.Add(r.plan.Every).Sub(ended), nextAll.Sub(ended))):
		}
	}
}

func (r *runner) bounded(ctx context.Context, request Request) (Record, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return r.do(ctx, request)
}

// do makes a check and stores what came of it. It fails if nothing could be looked at; where only a part could, the
// record says which.
func (r *runner) do(ctx context.Context, request Request) (Record, error) {
	record := Record{ID: clock.NewID(), By: request.By, Repair: request.Repair}
	one := request.Order != uuid.Nil
	if !one {
		select {
		case r.wide <- struct{}{}:
			defer func() { <-r.wide }()
		case <-ctx.Done():
			return record, ctx.Err()
		}
	}
	cfg := r.cfg
	cfg.Journal, cfg.Seen, cfg.Saw, cfg.Acknowledged = r.records.journal(record), r.records.seen, r.records.saw, r.records.acknowledged
	var err error
	record.Report, err = newChecker(cfg).Check(ctx, request)
	r.metrics.checked(request, record.Report, err, r.now())
	if err != nil && (len(record.Looked) == 0 || len(record.Failed) == 0 || ctx.Err() != nil) {
		return Record{}, fmt.Errorf("check: %w", err)
	}
	if err := r.records.store(ctx, record); err != nil {
		return Record{}, err
	}
	return record, nil
}
