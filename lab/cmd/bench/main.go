// Command bench measures the system against real Kafka and PostgreSQL; see `make bench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/converge-dev/converge/lab/bench"
	"github.com/converge-dev/converge/lab/bench/naive"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/app"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == string(plan.Naive) { // the bench starts itself as a service of the naive way
		service := os.Args[2]
		os.Args = os.Args[:1]
		app.Main(func(ctx context.Context, getenv func(string) string) error { return naive.Run(ctx, service, getenv) })
	}
	opts := plan.Defaults()
	modes := flag.String("mode", "", "what to measure: converge (the system), usual (what it is compared with), floor (its SQL alone), or several with commas between them (default: all)")
	scenarios := flag.String("scenarios", "", "under which load, such as idle,closed:64,flood:64,open:500:10s,rebalance:60s,memory:200000 or closed:64:10000 for so many orders (default: closed:64, flood:64, open:100, open:500, idle)")
	length := flag.Duration("duration", 0, "how long each scenario lasts that does not say so itself (default: 30s closed, 10s flood, 15s open, 5s idle)")
	flag.BoolVar(&opts.Smoke, "smoke", opts.Smoke, "everything for a second: to see that it works, not for numbers")
	flag.BoolVar(&opts.Full, "full", opts.Full, "everything for longer: also rebalance, memory, and the curves of -stored and -instances")
	flag.BoolVar(&opts.Profile, "profile", opts.Profile, "take a CPU profile of each service in each scenario, which costs it a little")
	flag.DurationVar(&opts.Warmup, "warmup", opts.Warmup, "load before each scenario; and twice as long before the first, for Kafka's JVM")
	flag.BoolVar(&opts.Even, "even", opts.Even, "open loop: orders at even distances, and not at random as those of independent users")
	flag.Func("instances", "instances of every service (default 1); a list such as 1,2,4 measures each, to compare them", numbers(&opts.Instances))
	flag.IntVar(&opts.Servers, "servers", opts.Servers, "PostgreSQL servers: 1, or 3 for one each")
	flag.Func("stored", "orders that lie in the databases before the measurement, as if they had gone through; a list such as 10000,1000000 measures each", numbers(&opts.Stored))
	flag.IntVar(&opts.Partitions, "partitions", opts.Partitions, "partitions of every topic")
	flag.Func("env", "a setting of the services to try, as NAME=VALUE; may be given several times", func(s string) error {
		opts.Env = append(opts.Env, s)
		return nil
	})
	flag.Uint64Var(&opts.Seed, "seed", opts.Seed, "of what is ordered, and when")
	flag.StringVar(&opts.JSON, "json", opts.JSON, "where to write the report")
	flag.StringVar(&opts.Markdown, "markdown", opts.Markdown, "where to write its tables, which standard output gets too")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unknown argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	if err := plan.Choose(&opts, *modes, *scenarios, *length); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}

	term := rig.Interruptible()
	err := bench.Run(term.Context, opts, term.Out, term.Err)
	term.Release()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(term.Err, "bench:", err)
	}
	if err != nil {
		os.Exit(1)
	}
}

// numbers reads a list of numbers.
func numbers(into *[]int) func(string) error {
	return func(s string) error {
		*into = nil
		for field := range strings.SplitSeq(s, ",") {
			n, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			*into = append(*into, n)
		}
		return nil
	}
}
