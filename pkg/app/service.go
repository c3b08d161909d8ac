package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/timer"
	"github.com/converge-dev/converge/pkg/web"
)

// Service is what makes one service different from the next.
type Service struct {
	saga.Service // name, routes, and what it publishes

	Addr       string         // default listen address, host:port
	Migrations fs.FS          // the schema of its own tables: goose files
	Blocks     []pg.Migration // the schemas of further building blocks, such as idempotency.Migration()
	Timeout    time.Duration  // of one HTTP operation; zero: web's default
	// Setup registers the HTTP operations and background work; nil: there are none. The database is migrated by then.
	// An error ends the start.
	Setup func(rt *Runtime) error
}

// Runtime is what a service's own parts are built from.
type Runtime struct {
	Pool    *pgxpool.Pool
	Web     *web.Server
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Broker  *broker.Client // for questions and scans; events leave by the outbox

	// Relay publishes the outbox: events of a transaction are handed to it, see [outbox.Relay.Queue].
	Relay *outbox.Relay
	// Go runs background work until its context ends at the stop. Its error stops the service.
	Go func(func(ctx context.Context) error)
	// Stopping ends at the stop, for requests that may take longer than the stop waits.
	Stopping context.Context
}

// stopTimeout bounds the stop, after which connections are closed. Whatever is cut off was either committed or will be
// delivered again.
const stopTimeout = 9 * time.Second

const (
	flush      = 3 * time.Second        // how long the relay publishes after all that emits has ended
	closeLimit = 300 * time.Millisecond // for the pool, and for the client
	slowStop   = 8 * time.Second        // a stop that takes so long is worth a warning
)

// maxDrain leaves the stop time for running requests.
const maxDrain = 5 * time.Second

// Run runs a service until ctx ends. It reads the settings that all services have and serves /healthz, /readyz,
// /metrics and /choreography.json. Then it waits for the database, migrates it, serves the other requests, consumes,
// fires timers, and relays the outbox. Kafka may be away: requests are served, events wait in the outbox.
//
// The stop takes at most 10 s: readiness goes first, then requests and batches in hand finish and the consumer groups
// are left, and when nothing can emit any more the relay publishes what the outbox still holds.
func Run(ctx context.Context, s *Settings, svc Service) error {
	prefix := strings.ToUpper(svc.Name)
	addr := s.Addr(prefix+"_ADDR", svc.Addr, "where to serve HTTP")
	drain := s.Duration("HTTP_DRAIN", 0, 0, maxDrain, "how long a service that stops still takes requests after /readyz has said so; longer than a load balancer needs to see it")
	dbURL := s.URL(prefix+"_DATABASE_URL", "postgres://"+svc.Name+":"+svc.Name+"@127.0.0.1:5432/"+svc.Name, "the service's own PostgreSQL database", "postgres", "postgresql")
	conns := s.Int(prefix+"_DATABASE_CONNECTIONS", 10, 4, 1000, "connections to the database at most")
	retention := s.Duration("INBOX_RETENTION", 7*24*time.Hour, time.Minute, 10*365*24*time.Hour, "how long handled messages are remembered; more than a duplicate can be late")
	keep := s.Duration("OUTBOX_KEEP", time.Minute, 0, 24*time.Hour, "how long published events are kept, to be published again if Kafka loses them; 0: not at all")
	pprofAddr := s.String(prefix+"_PPROF_ADDR", "", "where to serve Go's profiles, such as 127.0.0.1:6060; empty: nowhere")
	kafka := readKafka(s, svc.Name)
	log := NewLogger(os.Stderr, svc.Name, s)
	if done, err := Intercept(ctx, s, addr); done {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}

	listener, err := web.Listen(addr, prefix+"_ADDR")
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // Serve has closed it already, unless the start failed
	client, err := broker.Open(kafka.Config)
	if err != nil {
		return fmt.Errorf("KAFKA_*: %w", err)
	}
	defer within(closeLimit, client.Close)
	pool, err := pg.New(ctx, dbURL, pg.ApplicationName(svc.Name), pg.MaxConns(conns))
	if err != nil {
		return fmt.Errorf("%s_DATABASE_URL: %w", prefix, err)
	}
	defer within(closeLimit, pool.Close) // it waits for connections that are lent out

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newDatabaseCollector(pool), newBuildInfo())
	relay := outbox.NewRelay(pool, client, outbox.Config{Keep: cmp.Or(keep, -1), Flush: flush, Log: log, Metric: registry})
	timers := timer.NewRunner(pool, relay, timer.Config{Log: log, Metric: registry})
	server := web.New(web.Config{
		Service: svc.Name, Version: Version(), Log: log, Registry: registry, Timeout: svc.Timeout,
		Drain: drain, Grace: min(4*time.Second, 8*time.Second-drain),
	})
	server.Ready("database", pool.Ping)

	// Two stages, so that the relay outlives all that emits.
	front, frontCtx := errgroup.WithContext(saga.Declare(ctx, svc.Service))
	rt := &Runtime{
		Pool: pool, Web: server, Log: log, Metrics: registry, Broker: client, Relay: relay, Stopping: frontCtx,
		Go: func(fn func(context.Context) error) { front.Go(func() error { return fn(frontCtx) }) },
	}
	relayCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	relayed := make(chan error, 1)

	started := newStart(rt, svc)
	if pprofAddr != "" {
		ln, err := web.Listen(pprofAddr, prefix+"_PPROF_ADDR")
		if err != nil {
			return err
		}
		rt.Go(func(ctx context.Context) error { return servePprof(ctx, ln, log) })
	}
	rt.Go(func(ctx context.Context) error { return server.Serve(ctx, listener) })
	log.Info("listening", "addr", listener.Addr().String(), "version", Version())
	if err := started.run(frontCtx); err != nil {
		if frontCtx.Err() != nil { // it was told to stop while it waited, or cannot serve
			err = nil
		}
		rt.Go(func(context.Context) error { return err })
		relayed <- nil
	} else {
		go func() { relayed <- relay.Run(relayCtx) }()
		topics := kafka.newTopics(client, svc.Service, log)
		server.Ready("topics", topics.check)
		health := saga.NewHealth()
		server.Ready("consumer", consuming(health, client))
		rt.Go(func(ctx context.Context) error {
			if err := topics.ensure(ctx); err != nil {
				return err
			}
			return saga.Run(ctx, svc.Service, saga.Config{
				DB: pool, Broker: client, Relay: relay, Log: log, Metrics: saga.NewMetrics(registry), Health: health, InboxRetention: retention,
				Group: broker.GroupConfig{SessionTimeout: kafka.sessionTimeout, InstanceID: kafka.instanceID},
			})
		})
		rt.Go(timers.Run)
		rt.Go(pruner{pool, client, svc.Service, retention, log}.run)
		server.Release()
		log.Info("serving", "addr", listener.Addr().String())
	}

	stop := newStopwatch(frontCtx)
	stopped := make(chan error, 1)
	go func() {
		err := front.Wait()
		stop.lap("requests and consumers")
		stopRelay()
		err = errors.Join(err, <-relayed)
		stop.lap("outbox relay")
		stopped <- err
	}()
	select {
	case err = <-stopped:
	case <-overdue(frontCtx):
		err = fmt.Errorf("the stop took longer than %s; what was in hand is not lost and will be done at the next start", stopTimeout)
	}
	if laps, all := stop.read(); all > slowStop {
		log.Warn("the stop took long", "seconds", all.Seconds(), "laps", laps)
	}
	log.Info("stopped", "error", err)
	return err
}

// overdue is closed when the stop, which begins with ctx's end, has taken too long.
func overdue(ctx context.Context) <-chan struct{} {
	late := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(stopTimeout, func() { close(late) }) })
	return late
}
