package e2e_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/services/cli"
	"github.com/converge-dev/converge/services/system"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// opening is what a user's account holds before the first order.
const opening = 100_000_000

// stopWithin is what a service may take to stop, whatever it is doing.
const stopWithin = 10 * time.Second

// spine is all services with a broker and a database server each, to stop and start one by one.
type spine struct {
	kafka    *brokertest.Cluster
	dbs      map[string]*pgtest.Server
	addrs    map[string]string // of the services, and for good
	services map[string]*instance

	strangers []string // orders that the order service never saw, as the checker is to find
}

// instance is a running service.
type instance struct {
	name, addr string
	cancel     context.CancelFunc
	done       chan error
}

// setup starts everything; it ends with the test.
func setup(t *testing.T) *spine {
	t.Helper()
	s := &spine{kafka: brokertest.Own(t), dbs: map[string]*pgtest.Server{}, addrs: map[string]string{}, services: map[string]*instance{}}
	for _, name := range everyService() {
		s.dbs[name], s.addrs[name] = pgtest.NewServer(t), pgtest.FreeAddr(t)
	}
	t.Cleanup(func() { s.stop(t) })
	s.start(t)
	return s
}

func everyService() []string {
	var names []string
	for _, svc := range system.Services() {
		names = append(names, svc.Name)
	}
	return names
}

// url is where the service answers when it runs. It may be asked for at any time.
func (s *spine) url(name string) string { return "http://" + s.addrs[name] }

func (i *instance) url() string { return "http://" + i.addr }

// start starts the named services, or all, and waits until they are ready.
func (s *spine) start(t testing.TB, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = everyService()
	}
	for _, name := range names {
		s.services[name] = s.launch(t, name, s.addrs[name])
	}
	for _, name := range names {
		s.services[name].ready(t)
	}
}

// stop stops the named services, or all, at the same time.
func (s *spine) stop(t testing.TB, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = everyService()
	}
	began := time.Now()
	for _, name := range names {
		if i := s.services[name]; i != nil {
			i.cancel()
		}
	}
	for _, name := range names {
		if i := s.services[name]; i != nil {
			i.stopped(t, began)
		}
	}
}

// launch starts an instance of a service.
func (s *spine) launch(t testing.TB, name, addr string) *instance {
	t.Helper()
	prefix := strings.ToUpper(name)
	env := map[string]string{
		prefix + "_ADDR":         addr,
		prefix + "_DATABASE_URL": s.dbs[name].URL("postgres"),
		"KAFKA_BROKERS":          strings.Join(s.kafka.Brokers(), ","),
		"KAFKA_SESSION_TIMEOUT":  "3s", // after its restart the broker waits that long for the members it knew
		"OPENING_BALANCE":        strconv.Itoa(opening),
		"PRICE_CHECK":            "off", // what these tests order has amounts that tell it apart
		"LOG_LEVEL":              cmp.Or(os.Getenv("LOG_LEVEL"), "error"),
		// The checker looks all the time, and closely: nothing of what these tests do may look wrong to it.
		"CHECK_EVERY": "200ms", "CHECK_ALL_EVERY": "1s", "CHECK_GRACE": "1s",
		"ORDER_URL": s.url("order"), "INVENTORY_URL": s.url("inventory"), "PAYMENT_URL": s.url("payment"),
		"PROFILE_URL": s.url("profile"), "SEARCH_URL": s.url("search"),
	}
	i := &instance{name: name, addr: addr, done: make(chan error, 1)}
	var ctx context.Context
	ctx, i.cancel = context.WithCancel(context.WithoutCancel(t.Context()))
	for _, svc := range system.Services() {
		if svc.Name == name {
			go func() { i.done <- svc.Run(ctx, func(name string) string { return env[name] }) }()
		}
	}
	return i
}

func (i *instance) ready(t testing.TB) {
	t.Helper()
	eventually(t, i.name+" is ready", func() error {
		select {
		case err := <-i.done:
			i.done <- nil // for its stop
			t.Fatalf("%s ended by itself: %v", i.name, err)
		default:
		}
		a, err := request(t.Context(), http.MethodGet, i.url()+"/readyz", nil)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.status, a.body)
		}
		return err
	})
}

func (i *instance) stop(t testing.TB) {
	t.Helper()
	began := time.Now()
	i.cancel()
	i.stopped(t, began)
}

// stopped checks that a stop ends well and in time. It may be called again.
func (i *instance) stopped(t testing.TB, began time.Time) {
	t.Helper()
	select {
	case err := <-i.done:
		if err != nil {
			t.Errorf("%s ended with: %v", i.name, err)
		}
		i.done <- nil
	case <-time.After(time.Until(began.Add(stopWithin))):
		t.Errorf("%s did not stop within %s", i.name, stopWithin)
	}
}

// metric sums up a metric of the instance over its labels.
func (i *instance) metric(t testing.TB, name string) (sum float64) {
	t.Helper()
	a, err := request(t.Context(), http.MethodGet, i.url()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(a.body)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || (rest[0] != '{' && rest[0] != ' ') {
			continue
		}
		fields := strings.Fields(rest)
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatalf("metric line %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

// client speaks to the broker as a program that is none of ours.
func (s *spine) client(t testing.TB) *broker.Client {
	t.Helper()
	c, err := broker.Open(broker.Config{Brokers: s.kafka.Brokers(), ClientID: "foreign"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// records reads a whole topic, by key.
func (s *spine) records(t testing.TB, topic string) map[string][]broker.Record {
	t.Helper()
	found := map[string][]broker.Record{}
	err := s.client(t).Scan(t.Context(), topic, func(r broker.Record) error {
		found[string(r.Key)] = append(found[string(r.Key)], r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// converge runs the operator's command and returns what it prints.
func (s *spine) converge(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.command(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *spine) command(t testing.TB, args ...string) (string, error) {
	env := map[string]string{"KAFKA_BROKERS": strings.Join(s.kafka.Brokers(), ",")}
	var out, errOut strings.Builder
	if err := cli.Run(t.Context(), args, func(name string) string { return env[name] }, &out, &errOut); err != nil {
		return out.String(), fmt.Errorf("converge %s: %w\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// freeAddr finds a free port below those that the system gives to outgoing connections, so that it stays free while its
// service is stopped.
