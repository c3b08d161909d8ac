package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/driver"
	"github.com/converge-dev/converge/lab/bench/history"
	"github.com/converge-dev/converge/lab/bench/measure"
	"github.com/converge-dev/converge/lab/bench/naive"
	"github.com/converge-dev/converge/lab/bench/plan"
	"github.com/converge-dev/converge/lab/bench/report"
	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
)

func (b *bench) run(ctx context.Context, of plan.Leg) (run report.ModeRun, err error) {
	run = report.ModeRun{Mode: of.Mode, Curve: of.Curve}
	suffix := ""
	if of.Curve != "" {
		run.Value = of.Value()
		suffix = fmt.Sprintf("_%s_%d", of.Curve, of.Value())
		defer func() {
			err = errors.Join(err, b.DropDatabases(context.WithoutCancel(ctx), string(of.Mode)+"_", suffix))
		}()
	}
	urls, dbs, err := b.CreateDatabases(ctx, string(of.Mode)+"_", suffix)
	defer dbs.Close()
	if err != nil {
		return run, err
	}
	if of.Mode == plan.SQLFloor {
		err = b.floor(ctx, dbs, &run)
		return run, err
	}
	l := rig.Launch{
		Services: workload.Services[:], Instances: of.Instances, Brokers: b.Servers.Kafka.Addr.String(), Partitions: b.opts.Partitions,
		Databases: urls, Logs: b.opts.Dir, Env: map[string][]string{},
	}
	for _, service := range workload.Services {
		l.Env[service] = b.opts.Env
	}
	terminal := []string{event.OrderConfirmed.Name(), event.OrderCancelled.Name()}
	switch of.Mode {
	case plan.Converge:
		l.Command = b.Command
		l.Profile = b.opts.Profile
	case plan.Naive:
		self, err := os.Executable()
		if err != nil {
			return run, err
		}
		l.Command = func(service string) []string { return []string{self, string(plan.Naive), service} }
		terminal = []string{naive.Confirmed}
	default:
		return run, fmt.Errorf("there is no such mode")
	}
	err = b.system(ctx, of, l, dbs, terminal, &run)
	return run, err
}

// system measures the services that l starts.
func (b *bench) system(ctx context.Context, of plan.Leg, l rig.Launch, dbs testbed.Databases, terminal []string, run *report.ModeRun) (err error) {
	b.say("starting %d × %s", l.Instances, strings.Join(workload.Services[:], ", "))
	began := time.Now()
	processes, err := l.Start(ctx)
	defer func() {
		b.say("stopping the services")
		took, stopErr := rig.Stop(processes)
		run.StopSeconds = took.Seconds()
		err = errors.Join(err, stopErr)
	}()
	if err != nil {
		return err
	}
	run.StartSeconds = time.Since(began).Seconds()

	client, err := broker.Open(broker.Config{Brokers: []string{l.Brokers}, ClientID: "bench"})
	if err != nil {
		return err
	}
	defer client.Close()
	b.say("putting %d products in stock", workload.Products)
	if err := workload.PutStock(ctx, addrsOf(processes, "inventory")[0]); err != nil {
		return err
	}
	b.say("putting money into %d accounts", workload.Users)
	if err := workload.Fund(ctx, dbs["payment"]); err != nil {
		return err
	}
	r := &running{
		System: measure.System{Servers: b.Servers, Processes: processes, Databases: dbs, Metrics: of.Mode == plan.Converge}, // the others have no /metrics
		launch: l, name: of.Prefix(), driver: driver.New(addrsOf(processes, "order"), b.opts.Seed),
	}
	defer r.driver.Close()
	if of.Stored > 0 {
		b.say("storing %d orders of the past", of.Stored)
		ids, err := history.New(of.Stored, b.opts.Seed).Store(ctx, dbs)
		if err != nil {
			return err
		}
		r.driver.Tracker.Know(ids)
	}

	watchCtx, stopWatching := context.WithCancel(ctx)
	var watching errgroup.Group
	watching.Go(func() error { return r.driver.Tracker.Watch(watchCtx, client, terminal) })
	defer func() {
		stopWatching()
		err = errors.Join(err, watching.Wait())
	}()
	return b.measureAll(ctx, r, of.Scenarios, run)
}

func addrsOf(all []*rig.Process, service string) []string {
	var addrs []string
	for _, p := range all {
		if p.Service == service {
			addrs = append(addrs, p.Addr)
		}
	}
	return addrs
}
