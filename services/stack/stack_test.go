package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/services/system"
	"github.com/converge-dev/converge/testkit/pgtest"
)

const (
	patience   = 90 * time.Second
	stopWithin = 10 * time.Second
)

// output collects what the stack prints, for a test that reads while it is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// eventually waits until check finds nothing wrong any more.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// settings are a directory and ports of the test's own.
func settings(t *testing.T) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "converge-stack-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // where PostgreSQL's own user must get in, when root runs the tests
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	env := map[string]string{"STACK_DIR": filepath.Join(dir, "data"), "STACK_POSTGRES_PORT": "0", "STACK_KAFKA_PORT": "0"}
	for _, svc := range system.Services() {
		env[strings.ToUpper(svc.Name)+"_ADDR"] = pgtest.FreeAddr(t)
	}
	return env
}

// freeAddr finds a free port below those that the system gives to outgoing connections, so that it stays free between
// two runs of the stack. start runs the stack until it has said what can be done with it. The returned function stops
// it, in the time it has for that.
func start(t *testing.T, env map[string]string) (banner string, stop func()) {
	t.Helper()
	var out, errOut output
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, func(name string) string { return env[name] }, &out, &errOut) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the stack ended with: %v\n%s", err, errOut.String())
			}
			if !strings.Contains(out.String(), "Stopped.") {
				t.Errorf("the stack does not say that it has stopped:\n%s", out.String())
			}
		case <-time.After(stopWithin):
			t.Errorf("the stack did not stop within %s", stopWithin)
		}
	})
	t.Cleanup(stop)
	eventually(t, "the stack says what can be done with it", func() error {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the stack ended by itself: %v\n%s", err, errOut.String())
		default:
		}
		if !strings.Contains(out.String(), "Stop with Ctrl-C.") {
			return fmt.Errorf("so far it says %q", out.String())
		}
		return nil
	})
	return out.String(), stop
}

// order is what the tests look at of an order.
type order struct {
	ID               string            `json:"orderId"`
	Status           string            `json:"status"`
	Reason           string            `json:"reason"`
	ReasonCode       string            `json:"reasonCode"`
	ReasonParameters map[string]string `json:"reasonParameters"`
	SettledAt        *time.Time        `json:"settledAt"`
}

// call sends a request and reads the answer into v.
func call(ctx context.Context, method, url, body string, want int, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != want {
		return fmt.Errorf("%s %s: %d %s", method, url, res.StatusCode, b)
	}
	return json.Unmarshal(b, v)
}

// place places an order and returns it as it has settled.
func place(t *testing.T, url, body string) (o order) {
	t.Helper()
	if err := call(t.Context(), http.MethodPost, url, body, http.StatusAccepted, &o); err != nil {
		t.Fatal(err)
	}
	return settled(t, url, o.ID)
}

func settled(t *testing.T, url, id string) (o order) {
	t.Helper()
	eventually(t, "order "+id+" settles", func() error {
		err := call(t.Context(), http.MethodGet, url+"/"+id, "", http.StatusOK, &o)
		if err == nil && o.Status == "PENDING" {
			err = errors.New("it is PENDING")
		}
		return err
	})
	return o
}

// available is how many units of a product can be ordered.
func available(t *testing.T, env map[string]string, product string) int64 {
	t.Helper()
	var p struct {
		Available int64 `json:"available"`
	}
	if err := call(t.Context(), http.MethodGet, "http://"+env["INVENTORY_ADDR"]+"/products/"+product, "", http.StatusOK, &p); err != nil {
		t.Fatal(err)
	}
	return p.Available
}

// pasted is the banner's curl command that places an order: where to, and what.
var pasted = regexp.MustCompile(`curl -i (\S+) -H 'content-type: application/json' \\\n\s+-d '([^']+)'`)

// The banner's promises hold, and what happened is still so after a restart.
func TestStack(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	env := settings(t)
	banner, stop := start(t, env)
	curl := pasted.FindStringSubmatch(banner)
	if curl == nil {
		t.Fatalf("no curl command that places an order in\n%s", banner)
	}
	url, body := curl[1], curl[2]

	beans, grinders := available(t, env, "coffee-beans"), available(t, env, "grinder")
	confirmed := place(t, url, body)
	if confirmed.Status != "CONFIRMED" {
		t.Errorf("the banner's order is %s (%s)", confirmed.Status, confirmed.Reason)
	}
	const other = `{"userId":%q,"items":[{"productId":%q,"quantity":%d}],"amount":2500,"currency":"EUR"}`
	refused := place(t, url, fmt.Sprintf(other, "ada", "grinder", 5))
	if refused.Status != "CANCELLED" || !strings.Contains(refused.Reason, "out of stock: grinder") {
		t.Errorf("5 grinders are %s (%s)", refused.Status, refused.Reason)
	}
	declined := place(t, url, fmt.Sprintf(other, "declined-user", "coffee-beans", 2))
	if declined.Status != "CANCELLED" || !strings.Contains(declined.Reason, "declined-user") {
		t.Errorf("the declined user's order is %s (%s)", declined.Status, declined.Reason)
	}
	cheap := place(t, url, `{"userId":"ada","items":[{"productId":"coffee-beans","quantity":2}],"amount":1,"currency":"EUR"}`)
	if cheap.Status != "CANCELLED" || cheap.ReasonCode != "price-mismatch" || cheap.ReasonParameters["amount"] != "2500" {
		t.Errorf("beans for a cent are %s (%s, %s %v)", cheap.Status, cheap.Reason, cheap.ReasonCode, cheap.ReasonParameters)
	}
	stock := func() {
		t.Helper()
		eventually(t, "the stock is what the orders have left", func() error {
			if b, g := available(t, env, "coffee-beans"), available(t, env, "grinder"); b != beans-2 || g != grinders {
				return fmt.Errorf("%d coffee-beans and %d grinders, want %d and %d", b, g, beans-2, grinders)
			}
			return nil
		})
	}
	stock()

	stop()
	_, stop = start(t, env)
	for _, before := range []order{confirmed, refused, declined, cheap} {
		if now := settled(t, url, before.ID); now.Status != before.Status || now.Reason != before.Reason || !now.SettledAt.Equal(*before.SettledAt) {
			t.Errorf("after the restart the order is %+v, was %+v", now, before)
		}
	}
	stock()
	stop()
}

// Orders that were accepted a moment before the stop settle after the next start.
func TestUnfinishedSagasResume(t *testing.T) {
	const orders = 200
	env := settings(t)
	_, stop := start(t, env)
	url := "http://" + env["ORDER_ADDR"] + "/orders"
	ids := make([]string, orders)
	var posts errgroup.Group
	posts.SetLimit(20)
	for i := range orders {
		posts.Go(func() error {
			var o order
			err := call(t.Context(), http.MethodPost, url,
				`{"userId":"ada","items":[{"productId":"espresso-cup","quantity":1}],"amount":600,"currency":"EUR"}`, http.StatusAccepted, &o)
			ids[i] = o.ID
			return err
		})
	}
	err := posts.Wait()
	stop()
	if err != nil {
		t.Fatal(err)
	}

	stopped := time.Now()
	_, stop = start(t, env)
	defer stop()
	resumed := 0
	for _, id := range ids {
		o := settled(t, url, id)
		if o.Status != "CONFIRMED" {
			t.Errorf("order %s is %s (%s)", id, o.Status, o.Reason)
		}
		if o.SettledAt.After(stopped) {
			resumed++
		}
	}
	if resumed == 0 {
		t.Error("every order had settled before the stop; nothing was resumed")
	}
	if left := available(t, env, "espresso-cup"); left != 10_000-orders {
		t.Errorf("%d espresso-cups are left of 10,000 after %d orders of one each", left, orders)
	}
}

// A port that somebody else uses is an error that says which setting to change.
func TestTakenPort(t *testing.T) {
	env := settings(t)
	for _, setting := range []string{"STACK_POSTGRES_PORT", "STACK_KAFKA_PORT", "ORDER_ADDR", "PAYMENT_ADDR"} {
		t.Run(setting, func(t *testing.T) {
			taken, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			var out, errOut output
			err = run(t.Context(), func(name string) string {
				switch {
				case name != setting:
					return env[name]
				case strings.HasSuffix(name, "_PORT"):
					return strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
				default:
					return taken.Addr().String()
				}
			}, &out, &errOut)
			if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "set "+setting+" to another") {
				t.Errorf("the error is %v; want that the port is in use, and to set %s", err, setting)
			}
		})
	}
}

// Wrong settings are told at once, all together, before anything is started.
func TestWrongSettings(t *testing.T) {
	wrong := map[string]string{"STACK_DATABASES": "loyalty,order", "STACK_POSTGRES_PORT": "x", "ORDER_ADDR": "nowhere", "PAYMENT_DATABASE_URL": "mysql://payment"}
	env := maps.Clone(wrong)
	env["STACK_DIR"] = filepath.Join(t.TempDir(), "data")
	var out, errOut output
	err := run(t.Context(), func(name string) string { return env[name] }, &out, &errOut)
	for setting := range wrong {
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("the error is %v; want it to name %s", err, setting)
		}
	}
	if _, err := os.Stat(env["STACK_DIR"]); err == nil {
		t.Error("servers were started all the same")
	}
}
