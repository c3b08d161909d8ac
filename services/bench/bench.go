package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
)

// partitions of every topic.
const partitions = 6

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
	if err := build(ctx, bins); err != nil {
		return err
	}
	say("starting %s and %s", kafkaImage, postgresImage)
	srv, err := startServers(ctx, opts.Servers)
	defer func() { err = errors.Join(err, srv.remove(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}

	report := newReport(ctx, opts)
	b := bench{opts: opts, servers: srv, bins: bins, say: say}
	run, err := b.converge(ctx)
	report.Runs = append(report.Runs, run)
	report.print(out)
	if writeErr := report.write(opts.JSON); writeErr != nil {
		return errors.Join(err, writeErr)
	}
	say("report: %s", opts.JSON)
	if err == nil && report.violated() {
		err = ErrViolated
	}
	return err
}

type bench struct {
	opts    Options
	servers *servers
	bins    string
	say     func(format string, args ...any)
}

// rig is a running system with its driver.
type rig struct {
	servers   *servers
	processes []*process
	databases databases
	driver    *driver
	client    *broker.Client
	scrape    bool // the services have /metrics
}

// converge measures the services as they are.
func (b *bench) converge(ctx context.Context) (run ModeRun, err error) {
	run.Mode = "converge"
	urls := map[string]string{}
	dbs := databases{}
	for _, service := range serviceNames {
		if urls[service], err = b.servers.createDatabase(ctx, service, service); err != nil {
			return run, err
		}
		if dbs[service], err = pg.Open(ctx, urls[service], pg.MaxConns(2)); err != nil {
			return run, err
		}
		defer dbs[service].Close()
	}
	l := launch{
		command:   func(service string) []string { return []string{filepath.Join(b.bins, service)} },
		instances: b.opts.Instances, brokers: b.servers.kafka.addr.String(), databases: urls, logs: b.opts.Dir,
	}
	b.say("starting %d × %s", b.opts.Instances, strings.Join(serviceNames[:], ", "))
	began := time.Now()
	processes, err := l.start(ctx)
	defer func() {
		b.say("stopping the services")
		took, stopErr := stop(processes)
		run.StopSeconds = took.Seconds()
		err = errors.Join(err, stopErr)
	}()
	if err != nil {
		return run, err
	}
	run.StartSeconds = time.Since(began).Seconds()

	client, err := broker.Open(broker.Config{Brokers: []string{b.servers.kafka.addr.String()}, ClientID: "bench"})
	if err != nil {
		return run, err
	}
	defer client.Close()
	sys := &rig{servers: b.servers, processes: processes, databases: dbs, client: client, scrape: true}
	sys.driver = newDriver(addrsOf(processes, "order"), b.opts.Seed)
	defer sys.driver.close()
	b.say("putting %d products in stock", products)
	if err := seed(ctx, addrsOf(processes, "inventory")[0]); err != nil {
		return run, err
	}
	err = b.measureAll(ctx, sys, &run)
	return run, err
}

// measureAll runs the scenarios one after the other while the driver watches for terminal events.
func (b *bench) measureAll(ctx context.Context, sys *rig, run *ModeRun) error {
	watchCtx, stopWatching := context.WithCancel(ctx)
	var watching errgroup.Group
	watching.Go(func() error { return sys.driver.tracker.watch(watchCtx, sys.client) })
	defer watching.Wait() //nolint:errcheck // its error is the group's configuration's, which tests cover
	defer stopWatching()

	b.say("placing the first order")
	began := time.Now()
	if _, err := sys.driver.closed(ctx, 1, time.Millisecond); err != nil {
		return fmt.Errorf("the first order: %w", err)
	}
	if _, err := sys.driver.failed(); err != nil {
		return fmt.Errorf("the first order: %w", err)
	}
	run.FirstOrderSeconds = time.Since(began).Seconds()
	sys.driver.tracker.take()

	for _, sc := range b.opts.Scenarios {
		b.say("%s", sc)
		result, err := b.measure(ctx, sys, sc)
		if err != nil {
			return fmt.Errorf("%s: %w", sc, err)
		}
		run.Results = append(run.Results, result)
		b.say("  %s", result.line())
	}
	return nil
}

// measure warms up, runs one scenario between two looks at all counters, and verifies.
func (b *bench) measure(ctx context.Context, sys *rig, sc Scenario) (Result, error) {
	r := Result{Scenario: sc.String()}
	if sc.Kind != Idle {
		if _, err := b.load(ctx, sys, sc, b.opts.warmUp(sc)); err != nil {
			return r, fmt.Errorf("warm-up: %w", err)
		}
		sys.driver.tracker.take()
		sys.driver.failed()
	} else {
		pause(ctx, 2*time.Second) // what the last load left to do
	}
	before, err := sys.look(ctx, true)
	if err != nil {
		return r, err
	}
	w, loadErr := b.load(ctx, sys, sc, sc.Length)
	if ctx.Err() != nil {
		return r, ctx.Err()
	}
	after, err := sys.look(ctx, false)
	if err != nil {
		return r, err
	}
	if loadErr != nil {
		r.Violations = append(r.Violations, loadErr.Error())
	}
	r.latencies(sys.driver.tracker.take(), w)
	if failures, example := sys.driver.failed(); failures > 0 {
		r.Failures, r.Failure = failures, example.Error()
	}
	r.difference(before, after)
	if r.Stored, err = sys.stored(ctx, w); err != nil {
		return r, err
	}
	if r.PeakMiB, err = sys.peakMemory(); err != nil {
		return r, err
	}
	t := sys.driver.tracker
	wrong, err := verify(ctx, sys.databases, promised{acked: t.acked, unknown: t.unknown, stock: stock}, settleTimeout)
	r.Violations = append(r.Violations, wrong...)
	return r, errors.Join(err, alive(sys.processes))
}

func (b *bench) load(ctx context.Context, sys *rig, sc Scenario, length time.Duration) (window, error) {
	switch sc.Kind {
	case Closed:
		return sys.driver.closed(ctx, int(sc.N), length)
	case Open:
		schedule := evenly(sc.N, length)
		if !b.opts.Even {
			rnd := rand.New(rand.NewPCG(b.opts.Seed, uint64(length))) //nolint:gosec // reproducible on purpose
			schedule = independently(rnd, sc.N, length)
		}
		return sys.driver.open(ctx, schedule, length)
	default:
		from := time.Now()
		pause(ctx, length)
		return window{from, time.Now()}, nil
	}
}

func addrsOf(all []*process, service string) []string {
	var addrs []string
	for _, p := range all {
		if p.service == service {
			addrs = append(addrs, p.addr)
		}
	}
	return addrs
}

// seed puts the products in stock over inventory's API.
func seed(ctx context.Context, addr string) error {
	var g errgroup.Group
	g.SetLimit(8)
	for n := range products {
		g.Go(func() error {
			body := fmt.Sprintf(`{"name":"Product %d","price":100,"currency":"EUR","stock":%d}`, n, stock)
			req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+addr+"/products/"+productID(n), strings.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close() //nolint:errcheck // read to its end
			answer, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusCreated {
				return fmt.Errorf("put %s in stock: %s: %s", productID(n), res.Status, answer)
			}
			return nil
		})
	}
	return g.Wait()
}
