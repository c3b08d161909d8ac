package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/services/order"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// orders runs the order service, without Kafka, and returns its URL.
func orders(t *testing.T) *url.URL {
	t.Helper()
	settings := map[string]string{
		"ORDER_ADDR": pgtest.FreeAddr(t), "ORDER_DATABASE_URL": pgtest.URL(t), "KAFKA_BROKERS": "127.0.0.1:1", "LOG_LEVEL": "error",
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- order.Run(ctx, func(name string) string { return settings[name] }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the service ended with %v", err)
		}
	})
	at := &url.URL{Scheme: "http", Host: settings["ORDER_ADDR"]}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		if resp, err := http.Get(at.String() + "/readyz"); err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
			return at
		}
		select {
		case err := <-ended:
			t.Fatalf("the service ended early: %v", err)
		case <-deadline:
			t.Fatal("the service is not up after a minute")
		case <-tick.C:
		}
	}
}

// post sends a request to the service and returns the order that it answers with.
func post(t *testing.T, url, body string) (o order.Order) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("POST %s: %s %v", url, resp.Status, err)
	}
	return o
}

// severed is a stream that breaks off behind its first event.
type severed struct {
	io.ReadCloser
	seen []byte
}

func (s *severed) Read(p []byte) (int, error) {
	if bytes.Contains(s.seen, []byte("data: ")) {
		return 0, errors.New("the wire was cut")
	}
	n, err := s.ReadCloser.Read(p)
	s.seen = append(s.seen, p[:n]...)
	return n, err
}

// The command prints each line of an order's history once, also when the stream breaks off, and ends when the order has
// settled.
func TestOrderWatch(t *testing.T) {
	at := orders(t)
	id := post(t, at.String()+"/orders", `{"userId":"u-1","items":[{"productId":"p-1","quantity":1}],"amount":1,"currency":"EUR"}`).ID
	resumed := make(chan string, 1)
	var mu sync.Mutex
	streams := 0
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(at) },
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			mu.Lock()
			defer mu.Unlock()
			if streams++; streams == 1 {
				resp.Body = &severed{ReadCloser: resp.Body}
			} else {
				resumed <- resp.Request.Header.Get("Last-Event-ID")
			}
			return nil
		},
	})
	t.Cleanup(proxy.Close)

	printed := make(chan string, 1)
	go func() {
		out, errOut, err := terminal{T: t}.try("order", "watch", id.String(), "-url", proxy.URL)
		if err != nil || errOut != "" {
			t.Errorf("converge order watch: %v\n%s", err, errOut)
		}
		printed <- out
	}()
	if last := <-resumed; last != "1" {
		t.Errorf("the second stream begins after %q, want 1", last)
	}
	post(t, at.String()+"/orders/"+id.String()+"/cancel", `{"userId":"u-1","reason":"changed my mind"}`)
	want := regexp.MustCompile(`^\S+Z  PENDING     order.created\n\S+Z  CANCELLED   order.cancel.requested  changed my mind\n$`)
	if out := <-printed; !want.MatchString(out) {
		t.Errorf("it prints %q, want %s", out, want)
	}
	if out := (terminal{T: t}).run("order", "watch", "-url", at.String()+"/", id.String()); !want.MatchString(out) {
		t.Errorf("of a settled order it prints %q, want %s", out, want)
	}

	for args, want := range map[string]string{
		uuid.Max.String() + " -url " + at.String():     "there is no order " + uuid.Max.String(),
		"42 -url " + at.String():                       `"42" is no order's id`,
		uuid.Max.String() + " -url http://127.0.0.1:1": "connection refused",
	} {
		out, _, err := terminal{T: t}.try(append([]string{"order", "watch"}, strings.Fields(args)...)...)
		if err == nil || out != "" || !strings.Contains(err.Error(), want) {
			t.Errorf("order watch %s: %v, prints %q; want %q", args, err, out, want)
		}
	}
}
