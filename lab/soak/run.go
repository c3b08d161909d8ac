package soak

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

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/lab/soak/proxy"
)

// ErrViolated says that a promise was not kept. The report tells which.
var ErrViolated = errors.New("the system broke its promises")

// Run lets the system run, breaks it, and checks it. It says on log how it goes. Containers and processes are gone when
// it returns, whatever the reason. A report that holds violations is returned with ErrViolated.
func Run(ctx context.Context, opts Options, log io.Writer) (_ *Report, err error) {
	if err := opts.defaults(); err != nil {
		return nil, err
	}
	if err := cleanDir(opts.Dir); err != nil {
		return nil, err
	}
	bins, err := os.MkdirTemp("", "converge-soak-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bins)) }()
	say := func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }

	say("seed %d, %s of %s", opts.Seed, opts.Duration, strings.Join(opts.Faults, ", "))
	say("building the services %s", strings.Join(opts.flags(), " "))
	if err := build(ctx, bins, &opts); err != nil {
		return nil, err
	}
	say("starting %s, %d × %s and the services", rig.KafkaImage, len(serviceNames()), rig.PostgresImage)
	w := &world{
		archived: noFacts(), away: map[string]bool{},
		opts: opts, gates: map[string]*proxy.Proxy{}, dbs: map[string]*rig.Server{}, pools: map[string]*pgxpool.Pool{},
		running: map[string]*instance{}, second: map[string]*instance{}, peaks: map[string]float64{},
	}
	if opts.has("disk-full") {
		w.small = anyService(w, rand.New(rand.NewPCG(opts.Seed, 4)))
	}
	report := newReport(ctx, opts)
	w.withPrevious(ctx, bins, report, say)
	err = w.start(ctx, bins)
	if err == nil {
		err = w.ordeal(ctx, report, say)
	}
	if stopErr := w.stopServices(); stopErr != nil {
		report.Violations = append(report.Violations, Violation{Rule: "a service did not stop well", Details: []string{stopErr.Error()}})
	}
	if err = errors.Join(err, w.close(context.WithoutCancel(ctx))); err != nil {
		return report, err
	}
	if err := report.write(opts.JSON, opts.Markdown); err != nil {
		return report, err
	}
	if len(report.Violations) > 0 {
		return report, ErrViolated
	}
	return report, nil
}

// cleanDir makes an empty directory for logs.
func cleanDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, file := range old {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}

// ordeal is load and faults, and then the check.
func (w *world) ordeal(ctx context.Context, report *Report, say func(string, ...any)) error {
	if err := w.putInStock(ctx); err != nil {
		return err
	}
	l := newLoad(&w.opts, w.addrs)
	if err := w.openAccounts(ctx, l); err != nil {
		return err
	}
	c := &calamity{world: w, load: l, poisons: &poisons{}}
	h := &history{}

	loadCtx, stopLoad := context.WithCancel(ctx)
	patience, giveUp := context.WithCancel(ctx)
	placed := make(chan struct{})
	go func() {
		defer close(placed)
		l.place(loadCtx, patience)
	}()
	defer func() { stopLoad(); giveUp(); <-placed }()
	if err := w.atWork(ctx); err != nil {
		return err
	}
	began := time.Now()
	end := began.Add(w.opts.Duration)
	say("%s  orders go all the way; faults until %s", began.UTC().Format(time.TimeOnly), end.UTC().Format(time.TimeOnly))
	unleash(ctx, c, h, say, end)
	pause(ctx, time.Until(end))
	stopLoad()
	select { // what was not answered yet is asked for again
	case <-placed:
	case <-time.After(w.opts.Patience):
		giveUp()
		<-placed
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	say("%s  load and faults are over; waiting until everything is settled", time.Now().UTC().Format(time.TimeOnly))
	at, standing, err := w.settle(ctx)
	if err != nil {
		return err
	}
	say("%s: %s", map[bool]string{true: "settled", false: "NOT SETTLED"}[standing.settled()], standing)
	report.measured(w, l.counts(), h, began, at)

	f := &facts{
		stock: stock(), excused: excused(h.all(), w.opts.Settle), episodes: h.all(), ended: report.ended, patience: w.opts.Settle,
		settling: time.Duration(report.SettledSeconds * float64(time.Second)),
	}
	if err := w.lastLook(ctx); err != nil {
		f.blind = err.Error()
	}
	found, err := w.examine(ctx, f, c, h)
	if err != nil {
		return err
	}
	report.judged(f, h, found)
	return nil
}

// atWork waits until the first orders have gone all the way: before that, there is little to break.
func (w *world) atWork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	for {
		s, err := w.standing(ctx)
		if err != nil {
			return err
		}
		if s.counted > 0 {
			return nil
		}
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("no order was confirmed within %s: %s", comeback, s)
		}
	}
}

// examine checks until nothing is wrong, for what was settled a moment ago may still be on its way to a topic; what is
// wrong after that is.
func (w *world) examine(ctx context.Context, f *facts, c *calamity, h *history) ([]Violation, error) {
	for last := time.Now().Add(w.opts.Patience / 3); ; {
		f.requests, f.transfers, f.unanswered, _ = c.load.known()
		f.poisoned = c.poisons.all()
		err := errors.Join(f.readDatabases(ctx, w.pools), f.readTopics(ctx, w.client, w.archived))
		if err == nil {
			f.sightings, f.checks, err = readSightings(ctx, w.watching)
		}
		if err == nil {
			f.machine, err = w.misbehaved(c.load, h.all())
		}
		if err != nil {
			return nil, err
		}
		found := check(f)
		if len(found) == 0 || ctx.Err() != nil || time.Now().After(last) {
			explain(ctx, f, w.pools, h.all(), found)
			return found, ctx.Err()
		}
		pause(ctx, 500*time.Millisecond)
	}
}

// putInStock tells inventory of the products.
func (w *world) putInStock(ctx context.Context) error {
	for id, units := range stock() {
		body := fmt.Sprintf(`{"name":%q,"price":100,"currency":"EUR","stock":%d}`, id, units)
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+w.running["inventory"].Addr+"/products/"+id, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			return err
		}
		if res.StatusCode != http.StatusCreated {
			return fmt.Errorf("put %s in stock: %s: %s", id, res.Status, answer)
		}
	}
	return nil
}
