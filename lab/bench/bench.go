package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/report"
	"github.com/converge-dev/converge/lab/bench/testbed"
)

// ErrViolated says that the databases do not agree, or that orders were lost. The report tells which.
var ErrViolated = errors.New("the verification failed")

// Run measures what opts ask for, prints progress to log and tables to out, and writes the report as JSON. It ends with
// ErrViolated when a verification failed. Containers and processes are gone when it returns, whatever the reason.
func Run(ctx context.Context, opts plan.Options, out, log io.Writer) (err error) {
	if err := opts.Validate(); err != nil {
		return err
	}
	b := bench{opts: opts, say: func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }}
	b.Testbed, err = testbed.Open(ctx, opts.Dir, opts.Servers, opts.Partitions, b.say)
	defer func() { err = errors.Join(err, b.Close(ctx)) }()
	if err != nil {
		return err
	}

	r := report.New(ctx, opts)
	legs := opts.Legs()
	for i, l := range legs {
		left := time.Duration(0)
		for _, l := range legs[i:] {
			left += l.Expected(&opts)
		}
		b.say("%d of %d: %s; about %s left", i+1, len(legs), l, left.Round(10*time.Second))
		var run report.ModeRun
		run, err = b.run(ctx, l)
		r.Runs = append(r.Runs, run) // also of a run that broke off: what it has measured stands
		if err != nil {
			err = fmt.Errorf("%s: %w", l, err)
			break
		}
	}
	r.Judge()
	if writeErr := r.Write(opts, out); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	b.say("report: %s and %s", opts.JSON, opts.Markdown)
	if err == nil && r.Violated() {
		err = ErrViolated
	}
	return err
}
