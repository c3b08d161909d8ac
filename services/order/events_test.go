package order

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/testkit/sagatest"
)

// follow opens the stream of an order, for a client that has got some of it.
func follow(t *testing.T, url, last string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// lines are the events of a history, as they are sent.
func lines(o Order, after int) string {
	var text strings.Builder
	for i, e := range o.History[after:] {
		fmt.Fprintf(&text, "id: %d\nevent: history\ndata: %s\n", after+i+1, encode(e))
	}
	return text.String()
}

// The stream sends each line of the history when it is written, goes on where a client was cut off, and ends with the
// outcome.
func TestEventsOfAnOrder(t *testing.T) {
	t.Parallel()
	c := setup(t)
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	id := c.placed(t, draft("u-1")).ID
	url := s.URL + "/orders/" + id.String() + "/events"
	resp := follow(t, url, "")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	in := bufio.NewReader(resp.Body)
	next := func(n int) (text string) {
		t.Helper()
		for range n {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("after %q: %v", text, err)
			}
			text += line
		}
		return text
	}
	if got, want := next(6), "retry: 1000\n\n"+lines(c.order(t, id), 0); got != want {
		t.Errorf("first %q, want %q", got, want)
	}
	sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), stockBack(t, id))
	if got, want := next(4), lines(c.order(t, id), 1); got != want {
		t.Errorf("then %q, want %q", got, want)
	}
	second := follow(t, url, "2")
	c.waiting(t, 2)
	sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), failed(t, id))
	o := c.order(t, id)
	for name, rest := range map[string]io.Reader{"the first client": in, "one that comes again": second.Body} {
		got, err := io.ReadAll(rest)
		if want := lines(o, 2); err != nil || strings.TrimPrefix(string(got), "retry: 1000\n\n") != want {
			t.Errorf("%s got %q, %v, want %q", name, got, err, want)
		}
	}
	c.waiting(t, 0)

	for last, want := range map[string]string{"": lines(o, 0), "0": lines(o, 0), "1": lines(o, 1), "2": lines(o, 2), "4": lines(o, 0), "-1": lines(o, 0), "x": lines(o, 0)} {
		got, err := io.ReadAll(follow(t, url, last).Body)
		if err != nil || string(got) != "retry: 1000\n\n"+want {
			t.Errorf("after %q: %q %v, want %q", last, got, err, want)
		}
	}
	if resp := follow(t, url, "3"); resp.StatusCode != http.StatusNoContent {
		t.Errorf("one that has all: %s, want 204, which ends an EventSource", resp.Status)
	}
	if resp, err := http.Head(url); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD: %v %v", resp, err)
	}
}

func TestEventsOfNoOrder(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for target, status := range map[string]int{"/orders/" + uuid.Max.String() + "/events": 404, "/orders/42/events": 422} {
		w := c.get(target)
		if p := parse[huma.ErrorModel](t, w); w.Code != status || p.Status != status || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	c.waiting(t, 0)
}

// A quiet stream says every 15 s that it lives. It ends after its time, with the service, and when its client goes
// away.
func TestAQuietStream(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		end   func(all *waiters, leave context.CancelFunc)
		after time.Duration
		beats int
	}{
		"its time": {func(*waiters, context.CancelFunc) {}, streamFor, 60},
		"the service": {func(all *waiters, _ context.CancelFunc) {
			time.AfterFunc(50*time.Second, func() { close(all.stopped) })
		}, 50 * time.Second, 3},
		"the client": {func(_ *waiters, leave context.CancelFunc) { time.AfterFunc(31*time.Second, leave) }, 31 * time.Second, 3}, // one when it ends
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				all := newWaiters(1)
				waiter, err := all.join(uuid.Max)
				if err != nil {
					t.Fatal(err)
				}
				p := Progress{Status: Pending, History: []Entry{{Status: Pending, Event: "order.created"}}}
				waiter.notify(p)
				ctx, leave := context.WithCancel(t.Context())
				defer leave()
				w := httptest.NewRecorder()
				r := httptest.NewRequest(http.MethodGet, "/", http.NoBody).WithContext(ctx)
				tt.end(all, leave)
				began := time.Now()
				stream(humago.NewContext(&huma.Operation{}, r, w), waiter, p, 0)
				if took := time.Since(began); took != tt.after {
					t.Errorf("it ended after %s, want %s", took, tt.after)
				}
				if n := strings.Count(w.Body.String(), ": still here\n\n"); n != tt.beats && n != tt.beats+1 { // one more where the last is due at the end
					t.Errorf("%d beats, want %d: %q", n, tt.beats, w.Body)
				}
			})
		})
	}
}
