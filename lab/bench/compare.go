package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/converge-dev/converge/lab/bench/synchronous"
)

// CompareOptions say how to hold the system against the synchronous design.
type CompareOptions struct {
	Rate        float64       `json:"rate"`        // orders per second, whatever becomes of them
	Length      time.Duration `json:"nanoseconds"` // of a scenario; and how long payment is down
	Connections int           `json:"connections"` // of each synchronous service to its database
	Smoke       bool          `json:"smoke"`       // only to see that everything works
	Seed        uint64        `json:"seed"`
	Dir         string        `json:"-"` // for what the services log
	JSON        string        `json:"-"`
	Markdown    string        `json:"-"`
}

// CompareDefaults are what `make compare` measures.
func CompareDefaults() CompareOptions {
	dir := filepath.Join(".data", "compare")
	return CompareOptions{
		Rate: 100, Length: 20 * time.Second, Connections: synchronous.Connections, Seed: 1,
		Dir: dir, JSON: filepath.Join(dir, "compare.json"), Markdown: filepath.Join(dir, "compare.md"),
	}
}

func (o *CompareOptions) validate() error {
	if o.Smoke {
		o.Length, o.Rate = smokeLength, smokeRate
	}
	if o.Rate <= 0 || o.Length < time.Second || o.Connections < 1 {
		return fmt.Errorf("rate %g, duration %s, %d connections: want more than 0, a second at least, and 1 at least", o.Rate, o.Length, o.Connections)
	}
	return nil
}

const (
	smokeLength = time.Second
	smokeRate   = 50
)

// Synchronous is the design that calls and waits, see package synchronous. It is compared, and not measured like the others.
const Synchronous Mode = "synchronous"

// Compare puts both designs through the same scenarios, one after the other, prints progress to log and the table to out, and
// writes the report. It ends with ErrViolated when the system did not keep its promise to agree in the end; of the other design
// that is measured and not demanded. Containers and processes are gone when it returns, whatever the reason.
func Compare(ctx context.Context, opts CompareOptions, out, log io.Writer) (err error) {
	if err := opts.validate(); err != nil {
		return err
	}
	c := comparing{opts: opts}
	c.say = func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	if err := c.open(ctx, opts.Dir, 1, comparePartitions); err != nil {
		return err
	}

	report := newComparison(ctx, opts)
	for _, design := range []Mode{Synchronous, Converge} {
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

const comparePartitions = 6

type comparing struct {
	bench
	opts CompareOptions
}

// run puts one design through the scenarios.
func (c *comparing) run(ctx context.Context, design Mode) (results []Compared, err error) {
	c.say("%s: starting order, inventory and payment", design)
	s, err := c.start(ctx, design)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return nil, err
	}
	if err := seed(ctx, s.processes["inventory"].Addr); err != nil {
		return nil, err
	}
	if design == Converge { // the other one's payment has no accounts
		if err := fund(ctx, s.databases["payment"]); err != nil {
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
