// Command soak runs the whole system, breaks it and checks it; see `make soak`.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/lab/soak"
	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/app"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == witness.Name { // it starts itself as a service
		os.Args = os.Args[:1]
		app.Main(witness.Run)
	}
	opts := soak.Options{Seed: uint64(time.Now().UnixNano())}
	flag.DurationVar(&opts.Duration, "duration", 5*time.Minute, "how long orders come in and things break; settling and checking come after it")
	flag.Uint64Var(&opts.Seed, "seed", opts.Seed, "decides which faults come when (default: a new one)")
	list := flag.String("faults", "", "which faults, with commas between them (default: all): "+strings.Join(soak.FaultNames(), ", "))
	on := flag.String("on", "", "the services that a fault chooses its victim from (default: all)")
	flag.Float64Var(&opts.Rate, "rate", 150, "orders per second")
	flag.Float64Var(&opts.Burst, "burst", 1000, "orders per second while Kafka is away for long")
	flag.IntVar(&opts.Clients, "clients", 32, "requests at once")
	flag.Float64Var(&opts.Memory, "memory", 150, "MiB that a service may take")
	flag.StringVar(&opts.Sabotage, "sabotage", "", "break the services on purpose: skip-inbox, early-commit or bypass-outbox")
	flag.DurationVar(&opts.Settle, "settle", 30*time.Second, "how long settling may take after the last fault")
	flag.StringVar(&opts.Previous, "previous", "", "the commit that rolling-upgrade starts from (default: the last tag before this one, or a constant)")
	flag.StringVar(&opts.JSON, "json", filepath.Join(".data", "soak", "soak.json"), "where to write the report")
	flag.StringVar(&opts.Markdown, "markdown", filepath.Join(".data", "soak", "soak.md"), "where to write it to be read")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "soak: unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if *list != "" {
		opts.Faults = strings.Split(*list, ",")
	}
	if *on != "" {
		opts.On = strings.Split(*on, ",")
	}

	term := rig.Interruptible()
	report, err := soak.Run(term.Context, opts, term.Err)
	term.Release()
	if err == nil || errors.Is(err, soak.ErrViolated) {
		report.Print(term.Out)
		fmt.Fprintf(term.Err, "report: %s and %s\n", opts.JSON, opts.Markdown)
	}
	if err != nil {
		fmt.Fprintln(term.Err, "soak:", err)
		os.Exit(1)
	}
}
