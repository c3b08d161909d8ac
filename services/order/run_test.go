package order

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/testkit/pgtest"
)

// The whole service, as its binary runs it, accepts orders while there is no Kafka, commands those of which it hears
// nothing until their deadline, and stops when it is told to.
func TestRunWithoutKafka(t *testing.T) {
	t.Parallel()
	url, ended, stop := running(t, map[string]string{"KAFKA_BROKERS": pgtest.FreeAddr(t), "ORDER_DEADLINE": "1s"})
	resp, err := http.Post(url+"/orders", "application/json", strings.NewReader(draft("u-1")))
	if err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); resp.StatusCode != http.StatusAccepted {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	await(t, ended, func() bool {
		resp, err := http.Get(url + "/orders?status=CANCELLED")
		return err == nil && strings.Contains(read(t, resp), `"reason":"expired"`)
	})
	if resp, err = http.Get(url + "/facts/digest?to=ffffffff-ffff-ffff-ffff-ffffffffffff&widthMs=9223372036854"); err != nil {
		t.Fatal(err)
	}
	if body := read(t, resp); !strings.Contains(body, `"set":"confirmed","buckets":[{"start":0,"rows":1,"count":0,`) {
		t.Errorf("the facts: %s", body)
	}
	if resp, err = http.Get(url + "/metrics"); err != nil {
		t.Fatal(err)
	}
	body := read(t, resp)
	for _, metric := range []string{`converge_orders_total{status="PENDING"} 1`, "converge_orders_expired_total 1", "converge_orders_cancelling 0"} {
		if !strings.Contains(body, metric) {
			t.Errorf("the metrics do not tell %s:\n%s", metric, body)
		}
	}

	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Error("did not stop")
	}
}

// A service that is told to stop answers those who wait at once, with what their orders are by then, and is gone well
// within its time.
func TestTheStopEndsWaits(t *testing.T) {
	t.Parallel()
	url, ended, stop := running(t, map[string]string{"KAFKA_BROKERS": "127.0.0.1:1"})
	resp, err := http.Post(url+"/orders", "application/json", strings.NewReader(draft("u-1")))
	if err != nil {
		t.Fatal(err)
	}
	at := url + resp.Header.Get("Location")
	want := read(t, resp)

	type outcome struct {
		name, body string
		status     int
	}
	outcomes := make(chan outcome, 3)
	wait := func(name string, r *http.Request) {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			outcomes <- outcome{name: name, body: err.Error()}
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			body = []byte(err.Error())
		}
		outcomes <- outcome{name, string(body), resp.StatusCode}
	}
	for name, target := range map[string]string{"GET": at + "?wait=30s", "stream": at + "/events"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		go wait(name, r)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/orders", strings.NewReader(draft("u-1")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Prefer", "wait=30")
	r.Header.Set("Content-Type", "application/json")
	go wait("POST", r)
	await(t, ended, func() bool {
		resp, err := http.Get(url + "/metrics")
		return err == nil && strings.Contains(read(t, resp), "converge_order_waiters 3")
	})

	stop()
	began := time.Now()
	for range 3 {
		o := <-outcomes
		switch {
		case o.name == "GET" && (o.status != http.StatusOK || o.body != want),
			o.name == "POST" && (o.status != http.StatusAccepted || !strings.Contains(o.body, `"status":"PENDING"`)),
			o.name == "stream" && (o.status != http.StatusOK || !strings.HasSuffix(o.body, "\"event\":\"order.created\"}\n\n")):
			t.Errorf("%s: %d %s", o.name, o.status, o.body)
		}
	}
	select {
	case err := <-ended:
		if took := time.Since(began); err != nil || took > 10*time.Second {
			t.Errorf("ended after %s with %v", took, err)
		}
	case <-time.After(15 * time.Second):
		t.Error("did not stop")
	}
}

func TestRunNamesAWrongSetting(t *testing.T) {
	t.Parallel()
	for setting, value := range map[string]string{"ORDER_IDEMPOTENCY_TTL": "1s", "ORDER_DEADLINE": "0s", "ORDER_WAITERS": "0"} {
		err := Run(t.Context(), func(name string) string { return map[string]string{setting: value}[name] })
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("ended with %v, want an error that names %s", err, setting)
		}
	}
}

// running starts the service on a database of its own and waits until it is ready. It ends when stop is called, or with
// the test.
func running(t *testing.T, settings map[string]string) (url string, ended <-chan error, stop func()) {
	t.Helper()
	addr := pgtest.FreeAddr(t)
	settings["ORDER_ADDR"], settings["ORDER_DATABASE_URL"], settings["LOG_LEVEL"] = addr, pgtest.URL(t), "error"
	ctx, stop := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- Run(ctx, func(name string) string { return settings[name] }) }()
	url = "http://" + addr
	await(t, end, func() bool {
		resp, err := http.Get(url + "/readyz")
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
	return url, end, stop
}

// await polls until ok, and fails when the service ends or a minute is over.
func await(t testing.TB, ended <-chan error, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case err := <-ended:
			t.Fatalf("ended early: %v", err)
		case <-deadline:
			t.Fatal("not up after a minute")
		case <-tick.C:
		}
	}
}

func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
