package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func getenv(env map[string]string) func(string) string {
	return func(name string) string { return env[name] }
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// The service of the documentation runs: it is ready before Kafka is there, reacts once Kafka is, tells its metrics,
// and stops within its time with nothing left in the outbox.
func TestAWholeService(t *testing.T) {
	cluster := brokertest.Fake(t)
	cluster.Stop(t)
	env := map[string]string{
		"LOYALTY_ADDR": pgtest.FreeAddr(t), "LOYALTY_PPROF_ADDR": pgtest.FreeAddr(t), "LOYALTY_DATABASE_URL": pgtest.URL(t),
		"KAFKA_BROKERS": cluster.Brokers()[0], "KAFKA_PARTITIONS": "2", "LOG_LEVEL": "error",
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, getenv(env)) }()
	url := "http://" + env["LOYALTY_ADDR"]
	until(t, "ready without Kafka", func() bool { status, _ := get(t, url+"/readyz"); return status == http.StatusOK })

	cluster.Start(t)
	client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	order := uuid.Must(uuid.NewV7())
	confirmed, err := saga.Encode("order", saga.New(ctx, event.OrderConfirmed, order.String(), event.OrderConfirmedV1{OrderID: order}))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the topics exist and take an event", func() bool {
		return client.Produce(ctx, []broker.Record{confirmed, confirmed})[0] == nil
	})
	var granted []string
	until(t, "the event it emits", func() bool {
		granted = nil
		err := client.Scan(ctx, pointsGranted.Name(), func(r broker.Record) error { granted = append(granted, string(r.Value)); return nil })
		return err == nil && len(granted) > 0
	})
	if want := fmt.Sprintf(`{"orderId":"%s","points":10}`, order); len(granted) != 1 || granted[0] != want {
		t.Errorf("emitted %v, want %s once", granted, want)
	}
	var metrics string
	until(t, "the outbox is empty", func() bool {
		_, metrics = get(t, url+"/metrics")
		return strings.Contains(metrics, "converge_outbox_depth 0")
	})
	for _, want := range []string{
		`converge_consumer_lag{group="loyalty",partition="0",topic="order.confirmed"}`, "converge_consumer_batch_size_count", "converge_consumer_handler_seconds",
		"converge_consumer_duplicates_total", "converge_outbox_oldest_age_seconds 0", "converge_outbox_leader 1", "converge_database_up 1",
		"converge_timers_overdue_seconds 0", "converge_timers_fired_total 0",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if status, _ := get(t, "http://"+env["LOYALTY_PPROF_ADDR"]+"/debug/pprof/"); status != http.StatusOK {
		t.Errorf("profiles: status %d", status)
	}

	declared := `{"service":"loyalty","routes":[{"topic":"order.confirmed","group":"loyalty","deadLetters":"loyalty.dlq","emits":["points.granted"]}],"publishes":[]}`
	if status, body := get(t, url+app.ChoreographyPath); status != http.StatusOK || strings.TrimSpace(body) != declared {
		t.Errorf("it declares %d %s, want %s", status, body, declared)
	}
	if _, doc := get(t, url+"/openapi.json"); !strings.Contains(doc, `"/choreography.json"`) {
		t.Error("its description does not have its declaration")
	}

	began := time.Now()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("stopped with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stop took longer than 10 s")
	}
	t.Logf("stopped in %s", time.Since(began))
}

// What is wrong with the settings is said at the start, all of it, by name.
func TestWrongSettings(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tt := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"wrong values": {map[string]string{"LOYALTY_ADDR": "nowhere", "KAFKA_PARTITIONS": "many", "INBOX_RETENTION": "1"},
			[]string{"LOYALTY_ADDR", "KAFKA_PARTITIONS", "INBOX_RETENTION"}},
		"taken port":       {map[string]string{"LOYALTY_ADDR": taken.Addr().String()}, []string{"LOYALTY_ADDR", taken.Addr().String()}},
		"no such database": {map[string]string{"LOYALTY_ADDR": pgtest.FreeAddr(t), "LOYALTY_DATABASE_URL": pgtest.URL(t) + "_not"}, []string{"LOYALTY_DATABASE_URL"}},
		"SASL mechanism":   {map[string]string{"KAFKA_SASL_MECHANISM": "MAGIC"}, []string{"KAFKA_SASL_MECHANISM", "PLAIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			err := Run(ctx, getenv(tt.env))
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("error %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %s", err, want)
				}
			}
		})
	}
}
