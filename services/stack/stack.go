// Package stack runs the whole system in one process, on embedded servers: PostgreSQL as a child process, a
// Kafka-protocol broker, and every service. It is what `make run` starts.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/embedded"
	"github.com/converge-dev/converge/services/system"
)

// Run starts the servers that are not given, then the services, seeds products and says where everything is. It returns
// when ctx has ended and all has stopped, or when one part failed.
func Run(ctx context.Context, getenv func(string) string) error {
	if getenv("GOMEMLIMIT") == "" { // Main's limit is one service's; here are all of them, and a broker that keeps its topics in memory
		debug.SetMemoryLimit(math.MaxInt64)
	}
	return run(ctx, getenv, os.Stdout, os.Stderr)
}

type stack struct {
	getenv func(string) string
	guests []string          // databases for services that run elsewhere
	set    map[string]string // what the services get on top of the environment
	out    io.Writer
	stops  []func() error // of the embedded servers, in order of start
}

func run(ctx context.Context, getenv func(string) string, out, errOut io.Writer) (err error) {
	// For people at a terminal; whoever wants JSON or more of it says so. Everybody has money to order with.
	defaults := map[string]string{"LOG_FORMAT": "text", "LOG_LEVEL": "warn", "OPENING_BALANCE": "100000000", "KAFKA_INSTANCE_ID": "stack"}
	st := &stack{out: out, set: map[string]string{}, getenv: func(name string) string {
		if v := getenv(name); v != "" {
			return v
		}
		return defaults[name]
	}}

	s := app.NewSettings(st.getenv)
	dir := s.String("STACK_DIR", ".data", "where the embedded servers keep their data")
	pgPort := s.Int("STACK_POSTGRES_PORT", 5440, 0, 65535, "port of the embedded PostgreSQL; 0: any free one")
	kafkaPort := s.Int("STACK_KAFKA_PORT", 9092, 0, 65535, "port of the embedded broker; 0: any free one")
	var addrs []string
	for _, svc := range system.Services() {
		addrs = append(addrs, s.Addr(strings.ToUpper(svc.Name)+"_ADDR", svc.Addr, "where "+svc.Name+" serves HTTP"))
	}
	st.guests = readGuests(s)
	s.String("KAFKA_BROKERS", "", "host:port of a broker to use in place of the embedded one, or several with commas between them")
	for _, svc := range system.Services() {
		s.URL(databaseURL(svc), "", "a database to use in place of one on the embedded server", "postgres", "postgresql")
	}
	log := app.NewLogger(errOut, "stack", s)
	if done, err := app.Intercept(ctx, s, addrs[0]); done {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}

	defer func() {
		for _, v := range slices.Backward(st.stops) {
			err = errors.Join(err, v())
		}
		if err == nil {
			fmt.Fprintln(out, "Stopped. The data stays in", dir+"; make clean forgets it.")
		}
	}()
	progress := app.NewLogger(errOut, "stack", app.NewSettings(func(name string) string {
		return map[string]string{"LOG_FORMAT": "text", "LOG_LEVEL": "info"}[name]
	}))
	if err := st.startPostgres(ctx, embedded.PostgresConfig{Dir: filepath.Join(dir, "postgres"), Port: pgPort, Log: progress}); err != nil {
		return err
	}
	if err := st.startKafka(ctx, embedded.KafkaConfig{Dir: filepath.Join(dir, "kafka"), Port: kafkaPort}); err != nil {
		return err
	}

	for i, svc := range system.Services() { // the checker asks them
		st.set[strings.ToUpper(svc.Name)+"_URL"] = "http://" + addrs[i]
	}
	running, runCtx := errgroup.WithContext(ctx)
	for _, svc := range system.Services() {
		running.Go(func() error {
			if err := svc.Run(runCtx, st.lookup); err != nil {
				return fmt.Errorf("%s: %w", svc.Name, err)
			}
			return nil
		})
	}
	running.Go(func() error {
		err := st.welcome(runCtx, addrs)
		if runCtx.Err() != nil {
			return nil
		}
		return err
	})
	if err := running.Wait(); err != nil {
		log.Error("stopping", "error", err)
		return err
	}
	return nil
}

// databaseURL is the setting that gives a service another database than one on the embedded server.
func databaseURL(svc system.Service) string { return strings.ToUpper(svc.Name) + "_DATABASE_URL" }

// lookup is the environment the services see.
func (st *stack) lookup(name string) string {
	if v, ok := st.set[name]; ok {
		return v
	}
	return st.getenv(name)
}

// guestName is what PostgreSQL, a URL and a setting's name all take as it is.
var guestName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// readGuests reads which further databases there are to be.
func readGuests(s *app.Settings) []string {
	const setting = "STACK_DATABASES"
	names := s.List(setting, nil, "further databases on the embedded server, each with a role of its name, for services that run elsewhere: names with commas between them")
	for i, name := range names {
		ours := slices.ContainsFunc(system.Services(), func(svc system.Service) bool { return svc.Name == name })
		if !guestName.MatchString(name) || name == "postgres" || ours || slices.Contains(names[:i], name) {
			s.Reject(setting, "names of small letters, digits and _, such as shipping,loyalty, each once, and none of a service that runs here")
			return nil
		}
	}
	return names
}

// startPostgres starts one server with a database and a role for each service that was not given a URL, and for each
// guest.
func (st *stack) startPostgres(ctx context.Context, cfg embedded.PostgresConfig) error {
	var missing []system.Service
	for _, svc := range system.Services() {
		if st.getenv(databaseURL(svc)) == "" {
			missing = append(missing, svc)
		}
	}
	if len(missing) == 0 && len(st.guests) == 0 {
		fmt.Fprintln(st.out, "PostgreSQL  as given by *_DATABASE_URL")
		return nil
	}
	pg, err := embedded.Postgres(ctx, cfg)
	if err != nil {
		return portHint(err, "STACK_POSTGRES_PORT")
	}
	st.stops = append(st.stops, pg.Stop)
	var names []string
	for _, svc := range missing {
		if st.set[databaseURL(svc)], err = pg.Database(ctx, svc.Name); err != nil {
			return err
		}
		names = append(names, svc.Name)
	}
	guests := make([]string, len(st.guests)) // lines for a shell
	for i, name := range st.guests {
		url, err := pg.Database(ctx, name)
		if err != nil {
			return err
		}
		guests[i] = "export " + strings.ToUpper(name) + "_DATABASE_URL='" + url + "'"
	}
	fmt.Fprintln(st.out, "PostgreSQL ", "127.0.0.1:"+strconv.Itoa(pg.Port()), " databases:", strings.Join(append(names, st.guests...), ", "))
	for _, line := range guests {
		fmt.Fprintln(st.out, line)
	}
	return nil
}

func (st *stack) startKafka(ctx context.Context, cfg embedded.KafkaConfig) error {
	if given := st.getenv("KAFKA_BROKERS"); given != "" {
		fmt.Fprintln(st.out, "Kafka       as given by KAFKA_BROKERS:", given)
		return nil
	}
	kafka, err := embedded.Kafka(ctx, cfg)
	if err != nil {
		return portHint(err, "STACK_KAFKA_PORT")
	}
	st.stops = append(st.stops, func() error { kafka.Stop(); return nil })
	st.set["KAFKA_BROKERS"] = kafka.Addr()
	fmt.Fprintln(st.out, "Kafka      ", kafka.Addr())
	return nil
}

func portHint(err error, setting string) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; stop what uses the port, or set %s to another", err, setting)
	}
	return err
}

// welcome waits until every service is ready, seeds the products and tells what can be done.
func (st *stack) welcome(ctx context.Context, addrs []string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, addr := range addrs {
		for app.Healthcheck(ctx, addr) != nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
	if err := system.Seed(ctx, "http://"+addrs[1]); err != nil {
		return err
	}
	addrOf := map[string]string{}
	for i, svc := range system.Services() {
		addrOf[svc.Name] = addrs[i]
		fmt.Fprintf(st.out, "%-11s http://%s  (metrics: /metrics, API: /openapi.json)\n", svc.Name, addrs[i])
	}
	fmt.Fprintf(st.out, `
Place an order, and then look how it went:

  curl -i http://%[1]s/orders -H 'content-type: application/json' \
    -d '{"userId":"ada","items":[{"productId":"coffee-beans","quantity":2}],"amount":2500,"currency":"EUR"}'
  curl 'http://%[1]s/orders?userId=ada'
  curl http://%[4]s/accounts/ada
  curl http://%[2]s/analytics/orders
  curl 'http://%[3]s/search?q=cofee'
  curl http://%[5]s/checks -H 'content-type: application/json' -d '{}'

Out of stock: order 5 of "grinder". Declined: order as "declined-user". Stop with Ctrl-C.
`, addrOf["order"], addrOf["analytics"], addrOf["search"], addrOf["payment"], addrOf["checker"])
	return nil
}
