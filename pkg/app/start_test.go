package app_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// mute is a database that takes connections and says nothing, until it is told what to pass them on to.
type mute struct {
	net.Listener
	mu     sync.Mutex
	target string
}

func newMute(t *testing.T) *mute {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{Listener: ln}
	var conns sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); ln.Close(); conns.Wait() })
	conns.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { m.serve(ctx, in) })
		}
	})
	return m
}

func (m *mute) serve(ctx context.Context, in net.Conn) {
	defer in.Close()
	m.mu.Lock()
	target := m.target
	m.mu.Unlock()
	if target == "" {
		defer context.AfterFunc(ctx, func() { in.Close() })()
		_, _ = io.Copy(io.Discard, in)
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	go func() { _, _ = io.Copy(out, in); out.Close() }()
	_, _ = io.Copy(in, out)
}

// via is url with its host and port replaced by the listener's.
func via(url, addr string) string {
	at := strings.LastIndex(url, "@")
	slash := strings.Index(url[at:], "/")
	return url[:at+1] + addr + url[at+slash:]
}

func hostOf(url string) string {
	rest := url[strings.LastIndex(url, "@")+1:]
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// launch runs the example service until the test ends.
func launch(t *testing.T, env map[string]string) (stop context.CancelFunc, done <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, getenv(env)) }()
	t.Cleanup(cancel)
	return cancel, ended
}

// A service whose database is away, or takes connections and says nothing, tells that it lives, what it waits for and
// its metrics; others are asked to come again. It ends at once when it is told to, and starts when the database comes.
func TestAStartWithoutItsDatabase(t *testing.T) {
	for name, tt := range map[string]struct{ addr, want string }{
		"refuses":   {pgtest.FreeAddr(t), "connection refused"},
		"mute":      {newMute(t).Addr().String(), "waiting for"},
		"not known": {"database.invalid:5432", "cannot look up database.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{
				"LOYALTY_ADDR": pgtest.FreeAddr(t), "LOYALTY_DATABASE_URL": "postgres://u:hunter2@" + tt.addr + "/db?sslmode=disable",
				"KAFKA_BROKERS": pgtest.FreeAddr(t), "LOG_LEVEL": "error", "HTTP_DRAIN": "5s",
			}
			stop, done := launch(t, env)
			url := "http://" + env["LOYALTY_ADDR"]
			until(t, "it says what it waits for", func() bool {
				status, body := get(t, url+"/readyz")
				if strings.Contains(body, "hunter2") {
					t.Fatalf("it shows the password: %s", body)
				}
				return status == http.StatusServiceUnavailable && strings.Contains(body, "database: waiting for "+tt.addr) && strings.Contains(body, tt.want)
			})
			if status, body := get(t, url+"/healthz"); status != http.StatusOK {
				t.Errorf("/healthz: %d %s", status, body)
			}
			if status, body := get(t, url+"/metrics"); status != http.StatusOK || !strings.Contains(body, "converge_build_info") {
				t.Errorf("/metrics: %d, want converge_build_info in\n%s", status, body)
			}
			if status, body := get(t, url+"/openapi.json"); status != http.StatusServiceUnavailable || !strings.Contains(body, "not-ready") {
				t.Errorf("a request before the start: %d %s", status, body)
			}
			began := time.Now()
			stop()
			if err := <-done; err != nil {
				t.Errorf("stopped with %v", err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the stop took %s", took)
			}
		})
	}
}

func TestAStartGoesOnWhenTheDatabaseComes(t *testing.T) {
	database, url := newMute(t), pgtest.URL(t)
	env := map[string]string{
		"LOYALTY_ADDR": pgtest.FreeAddr(t), "LOYALTY_DATABASE_URL": via(url, database.Addr().String()),
		"KAFKA_BROKERS": pgtest.FreeAddr(t), "LOG_LEVEL": "error",
	}
	stop, done := launch(t, env)
	base := "http://" + env["LOYALTY_ADDR"]
	until(t, "it waits", func() bool { status, _ := get(t, base+"/readyz"); return status == http.StatusServiceUnavailable })
	database.mu.Lock()
	database.target = hostOf(url)
	database.mu.Unlock()
	until(t, "it is ready, and Kafka's absence is shown", func() bool {
		status, body := get(t, base+"/readyz")
		return status == http.StatusOK && strings.Contains(body, `"degraded":{"topics":`)
	})
	var health struct{ Version string }
	_, body := get(t, base+"/healthz")
	if err := json.Unmarshal([]byte(body), &health); err != nil || health.Version != app.Version() {
		t.Errorf("/healthz says %s (%v), want version %s", body, err, app.Version())
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// An existing topic with too few partitions keeps a service out, by the topic's name.
func TestATopicWithTooFewPartitions(t *testing.T) {
	cluster := brokertest.Fake(t)
	client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: event.OrderConfirmed.Name(), Partitions: 1}}); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{
		"LOYALTY_ADDR": pgtest.FreeAddr(t), "LOYALTY_DATABASE_URL": pgtest.URL(t),
		"KAFKA_BROKERS": cluster.Brokers()[0], "KAFKA_PARTITIONS": "3", "LOG_LEVEL": "error",
	}
	stop, done := launch(t, env)
	until(t, "it says which topic", func() bool {
		status, body := get(t, "http://"+env["LOYALTY_ADDR"]+"/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "topics") && strings.Contains(body, "order.confirmed has 1 partitions, want at least 3")
	})
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}
