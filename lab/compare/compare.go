package compare

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/bench/workload"
)

// ErrViolated says that the system has left orders inconsistent. The report tells which.
var ErrViolated = errors.New("the verification failed")

// Run puts both designs through the same scenarios, one after the other, prints progress to log and the table to out,
// and writes the report. It ends with ErrViolated when the system did not keep its promise to agree in the end; of the
// other design that is measured and not demanded. Containers and processes are gone when it returns, whatever the
// reason.
func Run(ctx context.Context, opts Options, out, log io.Writer) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	c := comparing{opts: opts}
	c.say = func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }
	c.Testbed, err = testbed.Open(ctx, opts.Dir, 1, partitions, c.say)
	defer func() { err = errors.Join(err, c.Close(ctx)) }()
	if err != nil {
		return err
	}

	report := newComparison(ctx, opts)
	for _, design := range []Design{Synchronous, Converge} {
		results, runErr := c.run(ctx, design)
		report.Results = append(report.Results, results...) // also of a run that broke off: what it has measured stands
		if runErr != nil {
			err = fmt.Errorf("%s: %w", design, runErr)
			break
		}
	}
	if len(report.Results) > 0 {
		if writeErr := report.write(opts, out); writeErr != nil {
			return errors.Join(err, writeErr)
		}
		c.say("report: %s and %s", opts.JSON, opts.Markdown)
	}
	if err == nil && report.violated() {
		err = ErrViolated
	}
	return err
}

// run puts one design through the scenarios.
func (c *comparing) run(ctx context.Context, design Design) (results []Compared, err error) {
	c.say("%s: starting order, inventory and payment", design)
	s, err := c.start(ctx, design)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := workload.PutStock(ctx, s.processes["inventory"].Addr); err != nil {
		return nil, err
	}
	if design == Converge { // the other one's payment has no accounts
		if err := workload.Fund(ctx, s.databases["payment"]); err != nil {
			return nil, err
		}
	}
	warm := c.opts.Length / 2
	c.say("%s: warming up for %s", design, warm)
	if err := c.warm(ctx, s, warm); err != nil {
		return nil, err
	}
	for _, sc := range c.opts.ordeals() {
		c.say("%s: %s, %s", design, sc.name, sc.length)
		r, err := c.measure(ctx, s, sc)
		if err != nil {
			return results, fmt.Errorf("%s: %w", sc.name, err)
		}
		c.say("  %s", r.line())
		results = append(results, r)
	}
	return results, nil
}
