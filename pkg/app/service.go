package app

import (
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
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// Service is what makes one service different from the next.
type Service struct {
	saga.Service // name, routes, and what it publishes

	Addr       string         // default listen address, host:port
	Migrations fs.FS          // the schema of its own tables: goose files
	Blocks     []pg.Migration // the schemas of further building blocks, such as idempotency.Migration()
	Timeout    time.Duration  // of one HTTP operation; zero: web's default
	// Setup registers the HTTP operations and background work; nil: there are none. The database is migrated by then. An
	// error ends the start.
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

// stopTimeout bounds the whole stop. Whatever is cut off was either committed or will be delivered again.
const stopTimeout = 9500 * time.Millisecond

// Run runs a service until ctx ends. It reads the settings that all services have, waits for the database, migrates it,
// then serves HTTP, consumes, and relays the outbox. Kafka may be away: requests are served, events wait in the outbox.
//
// The stop takes at most 10 s: readiness goes first, then requests and batches in hand finish and the consumer groups are
// left, and when nothing can emit any more the relay publishes what the outbox still holds.
func Run(ctx context.Context, s *Settings, svc Service) error {
	prefix := strings.ToUpper(svc.Name)
	addr := s.Addr(prefix+"_ADDR", svc.Addr, "where to serve HTTP")
	dbURL := s.URL(prefix+"_DATABASE_URL", "postgres://"+svc.Name+":"+svc.Name+"@127.0.0.1:5432/"+svc.Name, "the service's own PostgreSQL database", "postgres", "postgresql")
	conns := s.Int(prefix+"_DATABASE_CONNECTIONS", 10, 4, 1000, "connections to the database at most")
	retention := s.Duration("INBOX_RETENTION", 7*24*time.Hour, time.Minute, 10*365*24*time.Hour, "how long handled messages are remembered; more than a duplicate can be late")
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
	defer client.Close()
	pool, err := pg.Open(ctx, dbURL, pg.ApplicationName(svc.Name), pg.MaxConns(conns))
	if err != nil {
		return fmt.Errorf("%s_DATABASE_URL: %w", prefix, err)
	}
	defer pool.Close()
	blocks := append([]pg.Migration{outbox.Migration(), inbox.Migration()}, svc.Blocks...)
	if err := pg.Migrate(ctx, pool, append(blocks, pg.Migration{Name: svc.Name, FS: svc.Migrations})...); err != nil {
		return err
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newDatabaseCollector(pool))
	relay := outbox.NewRelay(pool, client, outbox.Config{Log: log, Metric: registry})
	server := web.New(web.Config{Service: svc.Name, Log: log, Registry: registry, Timeout: svc.Timeout, Grace: 4 * time.Second})
	server.Ready("database", pool.Ping)

	// Two stages, so that the relay outlives all that emits.
	front, frontCtx := errgroup.WithContext(ctx)
	rt := &Runtime{
		Pool: pool, Web: server, Log: log, Metrics: registry, Broker: client, Relay: relay, Stopping: frontCtx,
		Go: func(fn func(context.Context) error) { front.Go(func() error { return fn(frontCtx) }) },
	}
	if svc.Setup != nil {
		if err := svc.Setup(rt); err != nil {
			return fmt.Errorf("set up %s: %w", svc.Name, err)
		}
	}
	relayCtx, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	relayed := make(chan error, 1)
	go func() { relayed <- relay.Run(relayCtx) }()

	if pprofAddr != "" {
		ln, err := web.Listen(pprofAddr, prefix+"_PPROF_ADDR")
		if err != nil {
			return err
		}
		front.Go(func() error { return servePprof(frontCtx, ln) })
	}
	front.Go(func() error { return server.Serve(frontCtx, listener) })
	front.Go(func() error {
		// A member that joins before its topics exist is assigned nothing of them.
		if err := kafka.ensureTopics(frontCtx, client, svc.Service, log); err != nil {
			return err
		}
		return saga.Run(frontCtx, svc.Service, saga.Config{
			DB: pool, Broker: client, Relay: relay, Log: log, Metrics: saga.NewMetrics(registry),
			Group: broker.GroupConfig{SessionTimeout: kafka.sessionTimeout, InstanceID: kafka.instanceID},
		})
	})
	front.Go(func() error { return pruneInbox(frontCtx, pool, retention, log) })
	log.Info("serving", "addr", listener.Addr().String())

	stopped := make(chan error, 1)
	go func() {
		err := front.Wait()
		stopRelay()
		stopped <- errors.Join(err, <-relayed)
	}()
	select {
	case err = <-stopped:
	case <-overdue(frontCtx):
		err = fmt.Errorf("the stop took longer than %s; what was in hand is not lost and will be done at the next start", stopTimeout)
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

const pruneEvery = time.Minute

func pruneInbox(ctx context.Context, pool *pgxpool.Pool, retention time.Duration, log *slog.Logger) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if n, err := inbox.Prune(ctx, pool, retention, 5000); err != nil && ctx.Err() == nil {
			log.Warn("inbox not pruned; trying again in a minute", "deleted", n, "error", err)
		}
	}
}
