package soak

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/lab/soak/proxy"
	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// world is everything that runs: servers, the proxies in front of them, and the services.
type world struct {
	opts     Options
	servers  *rig.Servers
	brokers  []*proxy.Proxy // in front of each broker
	topics   []broker.TopicSpec
	archived *facts                   // the events of topics that were deleted
	previous string                   // the directory of the previous commit's binaries
	gates    map[string]*proxy.Proxy  // in front of each service's database
	dbs      map[string]*rig.Server   // by service
	pools    map[string]*pgxpool.Pool // the checker's way into each database, beside the proxy
	client   *broker.Client
	launch   rig.Launch
	small    string        // the service whose database has little room
	watching *pgxpool.Pool // the watcher's records

	mu      sync.Mutex
	running map[string]*instance // by service, the watcher among them
	second  map[string]*instance
	away    map[string]bool // services whose first instance gets no requests
	deaths  []string        // processes that ended though nobody made them
	peaks   map[string]float64
	watches sync.WaitGroup
}

// instance is one process, and whether it may end: a flag for each of its lives.
type instance struct {
	*rig.Process
	mortal *atomic.Bool
}

// build makes the services' binaries, and this module's own for the witness.
func build(ctx context.Context, dir string, opts *Options) error {
	return rig.Build(ctx, dir, []string{"order", "inventory", "payment", watcher, "soak"}, opts.flags()...)
}

// start starts servers and services. What was started has to be stopped even after an error.
func (w *world) start(ctx context.Context, bins string) (err error) {
	if w.topics, err = saga.Topics(partitions, choreography()...); err != nil {
		return err
	}
	cfg := rig.Config{Topics: w.topics, Second: w.opts.has("partition-leaderless"), Forgetful: w.opts.has("kafka-amnesia"),
		Advertise: func(addr netip.AddrPort) (string, error) {
			p, err := proxy.New(ctx, addr.String(), nil)
			if err != nil {
				return "", err
			}
			w.brokers = append(w.brokers, p)
			return p.Addr, nil
		},
	}
	for _, service := range serviceNames() {
		// Checkpoints are the same for all: a server with little room cannot keep much of its log.
		pgCfg := rig.PostgresConfig{Name: "postgres-" + service, Args: []string{"-c", "max_wal_size=128MB", "-c", "min_wal_size=32MB"}}
		if service == w.small {
			pgCfg.SpaceM = 1024 + int(w.opts.Duration.Seconds()*(w.opts.Rate+w.opts.Burst/6)*3/1024) // 3 KiB an order: only ballast may fill it
		}
		cfg.Postgres = append(cfg.Postgres, pgCfg)
	}
	if w.servers, err = rig.Start(ctx, cfg); err != nil {
		return err
	}
	urls := map[string]string{}
	for i, service := range serviceNames() {
		w.dbs[service] = w.servers.Postgres[i]
		direct, err := w.servers.CreateDatabase(ctx, w.dbs[service], service)
		if err != nil {
			return err
		}
		if w.gates[service], err = proxy.New(ctx, w.dbs[service].Addr.String(), &proxy.Cutter{}); err != nil {
			return err
		}
		if w.pools[service], err = pg.Open(ctx, direct, pg.ApplicationName("soak"), pg.MaxConns(4)); err != nil {
			return err
		}
		behind, err := netip.ParseAddrPort(w.gates[service].Addr)
		if err != nil {
			return err
		}
		urls[service] = (&rig.Server{Addr: behind}).URL(service, service)
	}
	var brokers []string
	for _, p := range w.brokers {
		brokers = append(brokers, p.Addr)
	}
	if w.client, err = broker.Open(broker.Config{Brokers: brokers, ClientID: "soak"}); err != nil {
		return err
	}
	common := []string{"KAFKA_SESSION_TIMEOUT=" + sessionTimeout.String(), "CONVERGE_SABOTAGE=" + w.opts.Sabotage, "PAYMENT_DECLINE_ABOVE=0",
		"PRICE_CHECK=off",                                                 // an order's amount is its number
		"OPENING_BALANCE=" + strconv.Itoa(opening), "KAFKA_REPLICATION=1"} // one copy of each partition, so that a broker can be missed
	w.launch = rig.Launch{
		Services: serviceNames(), Instances: 1, Brokers: strings.Join(brokers, ","), Partitions: partitions, Databases: urls, Logs: w.opts.Dir,
		Env: map[string][]string{}, Command: command(bins),
	}
	for _, service := range serviceNames() {
		w.launch.Env[service] = common
	}
	processes, err := w.launch.Start(ctx)
	for _, p := range processes {
		w.running[p.Service] = w.adopt(p)
	}
	if err != nil {
		return err
	}
	return w.startWatcher(ctx, bins)
}

// command starts the services whose binaries lie in a directory.
func command(bins string) func(service string) []string {
	return func(service string) []string {
		if service == witness.Name {
			return []string{filepath.Join(bins, "soak"), witness.Name}
		}
		return []string{filepath.Join(bins, service)}
	}
}

// adopt watches over a process from its start to its end.
func (w *world) adopt(p *rig.Process) *instance {
	i := &instance{Process: p}
	w.watchOver(i)
	return i
}

func (w *world) watchOver(i *instance) {
	mortal := &atomic.Bool{}
	i.mortal = mortal
	exited, pid := i.Exited(), i.PID()
	w.watches.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-exited:
				if !mortal.Load() {
					w.mu.Lock()
					w.deaths = append(w.deaths, fmt.Sprintf("%s ended at %s:\n%s", i.Service, time.Now().UTC().Format(time.TimeOnly), i.LogTail()))
					w.mu.Unlock()
				}
				return
			case <-tick.C:
				if mib, err := rig.PeakMiB(pid); err == nil {
					w.mu.Lock()
					w.peaks[i.Service] = max(w.peaks[i.Service], mib)
					w.mu.Unlock()
				}
			}
		}
	})
}

// kill ends an instance as a crash does.
func (w *world) kill(i *instance) {
	i.mortal.Store(true)
	i.Kill()
}

// stop ends an instance as an operator does, who expects it to keep its promises.
func (w *world) stop(i *instance) error {
	i.mortal.Store(true)
	_, err := rig.Stop([]*rig.Process{i.Process})
	return err
}

// restart starts an instance that has ended, and waits until it is ready.
func (w *world) restart(ctx context.Context, i *instance, env ...string) error {
	if err := i.Start(env...); err != nil {
		return err
	}
	w.watchOver(i)
	return w.ready(ctx, i)
}

// comeback is how long a service may take to be ready again, with a database that may be down itself for a while.
const comeback = 90 * time.Second

func (w *world) ready(ctx context.Context, i *instance) error {
	ctx, cancel := context.WithTimeout(ctx, comeback)
	defer cancel()
	return i.AwaitReady(ctx)
}

// join starts a second instance of a service.
func (w *world) join(ctx context.Context, service string) (*instance, error) {
	return w.joinAs(ctx, w.launch, service)
}

// joinBeside starts one whose way to its database is its own: what is done to the first's connections does not concern
// it.
func (w *world) joinBeside(ctx context.Context, service string) (*instance, error) {
	launch := w.launch
	launch.Databases = map[string]string{service: w.dbs[service].URL(service, service)}
	return w.joinAs(ctx, launch, service)
}

func (w *world) joinAs(ctx context.Context, launch rig.Launch, service string) (*instance, error) {
	p, err := launch.One(service, 1)
	if err != nil {
		return nil, err
	}
	i := w.adopt(p)
	w.mu.Lock()
	w.second[service] = i
	w.mu.Unlock()
	return i, w.ready(ctx, i)
}

// leave stops it.
func (w *world) leave(i *instance) error {
	if i == nil {
		return nil
	}
	w.mu.Lock()
	delete(w.second, i.Service)
	w.mu.Unlock()
	return w.stop(i)
}

func (w *world) first(service string) *instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running[service]
}

// server is the broker, or a service's database server.
func (w *world) server(on string) *rig.Server {
	switch on {
	case "kafka":
		return w.servers.Kafka
	case "kafka-2":
		return w.servers.Second
	}
	return w.dbs[on]
}

// addrs are where a service answers.
func (w *world) addrs(service string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	addrs := []string{w.running[service].Addr}
	if i := w.second[service]; i != nil {
		addrs = append(addrs, i.Addr)
		if w.away[service] {
			return addrs[1:]
		}
	}
	return addrs
}

// turnAway sends requests to a service's second instance alone, or to both again.
func (w *world) turnAway(service string, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[service] = away
}

// stopServices stops every process. Their stop has to be clean.
func (w *world) stopServices() error {
	w.mu.Lock()
	var all []*rig.Process
	for _, m := range []map[string]*instance{w.running, w.second} {
		for _, i := range m {
			i.mortal.Store(true)
			i.Signal(sigCont)
			all = append(all, i.Process)
		}
	}
	w.mu.Unlock()
	_, err := rig.Stop(all)
	w.watches.Wait()
	return err
}

// close removes everything else.
func (w *world) close(ctx context.Context) error {
	for _, pool := range w.pools {
		pool.Close()
	}
	if w.watching != nil {
		w.watching.Close()
	}
	if w.client != nil {
		w.client.Close()
	}
	for _, p := range w.brokers {
		p.Close()
	}
	for _, gate := range w.gates {
		gate.Close()
	}
	return w.servers.Remove(ctx)
}

// logs are the files that the services write.
func (w *world) logs() ([]string, error) {
	entries, err := os.ReadDir(w.opts.Dir)
	var files []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".log" {
			files = append(files, filepath.Join(w.opts.Dir, e.Name()))
		}
	}
	return files, err
}
