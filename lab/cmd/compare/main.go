// Command compare holds the system against the synchronous design under the same load and faults; see `make compare`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/converge-dev/converge/lab/bench/synchronous"
	"github.com/converge-dev/converge/lab/compare"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/app"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == string(compare.Synchronous) { // it starts itself as a service of that design
		service := os.Args[2]
		os.Args = os.Args[:1]
		app.Main(func(ctx context.Context, getenv func(string) string) error {
			return synchronous.Run(ctx, service, getenv)
		})
	}
	opts := compare.Defaults()
	flag.Float64Var(&opts.Rate, "rate", opts.Rate, "orders per second, whatever becomes of them")
	flag.DurationVar(&opts.Length, "duration", opts.Length, "how long a scenario lasts, and payment is down; that scenario lasts twice as long")
	flag.IntVar(&opts.Connections, "connections", opts.Connections, "connections of each synchronous service to its database at most")
	flag.BoolVar(&opts.Smoke, "smoke", opts.Smoke, "everything for seconds: to see that it works, not for numbers")
	flag.Uint64Var(&opts.Seed, "seed", opts.Seed, "of what is ordered")
	flag.StringVar(&opts.JSON, "json", opts.JSON, "where to write the report")
	flag.StringVar(&opts.Markdown, "markdown", opts.Markdown, "where to write its table, which standard output gets too")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "compare: unknown argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	term := rig.Interruptible()
	err := compare.Run(term.Context, opts, term.Out, term.Err)
	term.Release()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(term.Err, "compare:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}
