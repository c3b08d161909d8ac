package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/converge-dev/converge/lab/rig"
)

// ErrViolated says that the databases do not agree, or that orders were lost. The report tells which.
var ErrViolated = errors.New("the verification failed")

// Run measures what opts ask for, prints progress to log and tables to out, and writes the report as JSON. It ends with
// ErrViolated when a verification failed. Containers and processes are gone when it returns, whatever the reason.
func Run(ctx context.Context, opts Options, out, log io.Writer) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	b := bench{opts: opts, say: func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }}
	defer func() { err = errors.Join(err, b.close(ctx)) }()
	if err := b.open(ctx, opts.Dir, opts.Servers, opts.Partitions); err != nil {
		return err
	}

	report := newReport(ctx, opts)
	legs := opts.legs()
	for i, l := range legs {
		left := time.Duration(0)
		for _, l := range legs[i:] {
			left += l.expected(&opts)
		}
		b.say("%d of %d: %s; about %s left", i+1, len(legs), l, left.Round(10*time.Second))
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
	b.say("report: %s and %s", opts.JSON, opts.Markdown)
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

// open makes the directory of the report, builds the services and starts the servers. What it made is to be closed even after an
// error.
func (b *bench) open(ctx context.Context, dir string, servers, partitions int) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if b.bins, err = os.MkdirTemp("", "converge-bench-"); err != nil {
		return err
	}
	b.say("building the services")
	if err := rig.Build(ctx, b.bins, serviceNames[:]); err != nil {
		return err
	}
	b.say("starting %s and %s", rig.KafkaImage, rig.PostgresImage)
	b.servers, err = startServers(ctx, servers, partitions)
	return err
}

func (b *bench) close(ctx context.Context) error {
	err := b.servers.Remove(context.WithoutCancel(ctx))
	if b.bins != "" {
		err = errors.Join(err, os.RemoveAll(b.bins))
	}
	return err
}
