package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/converge-dev/converge/services/rig"
)

// ErrViolated says that the databases do not agree, or that orders were lost. The report tells which.
var ErrViolated = errors.New("the verification failed")

// Run measures what opts ask for, prints progress to log and tables to out, and writes the report as JSON. It ends with
// ErrViolated when a verification failed. Containers and processes are gone when it returns, whatever the reason.
func Run(ctx context.Context, opts Options, out, log io.Writer) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return err
	}
	bins, err := os.MkdirTemp("", "converge-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bins)) }()

	say := func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }
	say("building the services")
	if err := rig.Build(ctx, bins, serviceNames[:]); err != nil {
		return err
	}
	say("starting %s and %s", rig.KafkaImage, rig.PostgresImage)
	srv, err := startServers(ctx, opts.Servers, opts.Partitions)
	defer func() { err = errors.Join(err, srv.Remove(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}

	report := newReport(ctx, opts)
	b := bench{opts: opts, servers: srv, bins: bins, say: say}
	legs := opts.legs()
	for i, l := range legs {
		left := time.Duration(0)
		for _, l := range legs[i:] {
			left += l.expected(&opts)
		}
		say("%d of %d: %s; about %s left", i+1, len(legs), l, left.Round(10*time.Second))
		var run ModeRun
		run, err = b.run(ctx, l)
		report.Runs = append(report.Runs, run) // also of a run that broke off: what it has measured stands
		if err != nil {
			err = fmt.Errorf("%s: %w", l, err)
			break
		}
	}
	report.judge()
	if writeErr := report.write(opts, out); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	say("report: %s and %s", opts.JSON, opts.Markdown)
	if err == nil && report.violated() {
		err = ErrViolated
	}
	return err
}

type bench struct {
	opts    Options
	servers servers
	bins    string
	say     func(format string, args ...any)
}
