package checker_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/checker/checkertest"
)

// failing is a test that notes how it fails, and has less time than others.
type failing struct {
	testing.TB
	ctx  context.Context
	said []string
}

func (f *failing) Helper()                        {}
func (f *failing) Context() context.Context       { return f.ctx }
func (f *failing) Error(args ...any)              { f.said = append(f.said, fmt.Sprint(args...)) }
func (f *failing) Errorf(format string, a ...any) { f.said = append(f.said, fmt.Sprintf(format, a...)) }
func (f *failing) Fatal(args ...any)              { f.Error(args...); runtime.Goexit() }
func (f *failing) Fatalf(format string, a ...any) { f.Errorf(format, a...); runtime.Goexit() }

// verify says how a test fails that has these services verified.
func verify(t *testing.T, orders, shipments string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	f := &failing{TB: t, ctx: ctx}
	var wg sync.WaitGroup
	wg.Go(func() {
		checkertest.Verify(f, checker.Config{
			Services: []checker.Service{{Name: "order", URL: orders, Set: "confirmed"}, {Name: "shipping", URL: shipments, Set: "scheduled", Holds: "shipment"}},
			Rules:    []checker.Rule{checker.Subset("scheduled-not-confirmed", "shipping", "order")},
		})
	})
	wg.Wait()
	return strings.Join(f.said, "\n")
}

// A test fails with what the services do not agree about, and passes where they do.
func TestVerify(t *testing.T) {
	t.Parallel()
	shipping := tiny(t, "shipments", "scheduled", "SCHEDULED", "SCHEDULED")
	for second, want := range map[string]string{"CONFIRMED": "", "CANCELLED": "scheduled-not-confirmed at 01980d2e-0000-7000-8000-000000000002: it is in the set of shipping"} {
		order := tiny(t, "orders", "confirmed", "CONFIRMED", second)
		if got := verify(t, order.url, shipping.url); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("with an order %s: %q, want %q", second, got, want)
		}
	}
	if got := verify(t, "http://127.0.0.1:1", shipping.url); !strings.HasPrefix(got, "the check could not look: order: ") {
		t.Errorf("without order: %q", got)
	}
}

// What is on its way is waited for, and what never arrives is no agreement.
func TestVerifyWaits(t *testing.T) {
	t.Parallel()
	order, shipping := tiny(t, "orders", "confirmed", "CONFIRMED", "CANCELLED"), tiny(t, "shipments", "scheduled", "SCHEDULED", "SCHEDULED")
	move := func(at time.Time) {
		if _, err := shipping.db.Exec(t.Context(), `UPDATE shipments SET status = 'SCHEDULED', changed_at = $1`, at); err != nil {
			t.Fatal(err)
		}
	}
	move(time.Now().Add(time.Hour))
	if got := verify(t, order.url, shipping.url); !strings.HasPrefix(got, "1 of 2 are still on their way") {
		t.Errorf("what never arrives: %q", got)
	}

	// It arrives when the checker has seen that something differs, and looks again.
	to, err := url.Parse(shipping.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	looked := 0
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/facts/query" {
			if looked++; looked == 1 {
				_, err := shipping.db.Exec(r.Context(), `UPDATE shipments SET status = 'STOPPED', changed_at = now() WHERE id = '01980d2e-0000-7000-8000-000000000002'`)
				if err != nil {
					t.Error(err)
				}
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(late.Close)
	move(time.Now())
	if got := verify(t, order.url, late.URL); got != "" || looked == 0 {
		t.Errorf("what arrives: %q, after %d looks", got, looked)
	}
}
