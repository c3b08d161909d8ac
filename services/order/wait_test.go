package order

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// looking has the instance look for what other instances have changed.
func (c client) looking(t testing.TB) {
	t.Helper()
	c.waits.every = 20 * time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	go c.waits.run(ctx, c.db, slog.New(slog.DiscardHandler)) //nolint:errcheck // it returns nil
	t.Cleanup(func() { stop(); <-c.waits.stopped })
}

// prefers is a request to place an order that prefers something.
func prefers(body, key string, preferences ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for _, p := range preferences {
		r.Header.Add("Prefer", p)
	}
	return r
}

// begin sends a request whose answer comes later. Its client leaves when it takes longer than any wait.
func (c client) begin(r *http.Request) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	ctx, leave := context.WithTimeout(r.Context(), longestWait+waitMargin)
	go func() {
		defer leave()
		answer <- c.do(r.WithContext(ctx))
	}()
	return answer
}

// waiting returns when so many requests wait.
func (c client) waiting(t testing.TB, n int) {
	t.Helper()
	await(t, nil, func() bool { return c.waits.waiting() == n })
}

// committed is every way in which an instance settles a PENDING order.
var committed = map[string]struct {
	settle func(t *testing.T, c client, w *waiters, id uuid.UUID)
	status Status
}{
	"by an event": {func(t *testing.T, c client, w *waiters, id uuid.UUID) {
		sagatest.Deliver(t, c.db, waking(c.metrics, w), completed(t, id))
	}, Confirmed},
	"by its user": {func(t *testing.T, c client, w *waiters, id uuid.UUID) {
		commands := commands{db: c.db, metrics: c.metrics, waits: w, now: clock.Now}
		if _, err := commands.request(t.Context(), id, "u-1", "changed my mind"); err != nil {
			t.Error(err)
		}
	}, Cancelled},
	"by its deadline": {func(t *testing.T, c client, w *waiters, id uuid.UUID) {
		commands := commands{db: c.db, metrics: c.metrics, waits: w, now: clock.Now}
		if _, err := commands.expire(t.Context(), []uuid.UUID{id}); err != nil {
			t.Error(err)
		}
	}, Cancelled},
	"by the checker": {func(t *testing.T, c client, w *waiters, id uuid.UUID) {
		commands := commands{db: c.db, metrics: c.metrics, waits: w, now: clock.Now}
		if _, _, err := commands.reconcile(t.Context(), id, comparison{seen: Pending, reason: "lost", by: "checker"}); err != nil {
			t.Error(err)
		}
	}, Cancelled},
}

// Whoever settles an order wakes those who wait for it: the instance itself by its commit, another one by what is
// looked at.
func TestAWaitEndsWhenTheOrderSettles(t *testing.T) {
	t.Parallel()
	for how, by := range committed {
		for _, here := range []bool{true, false} {
			where := map[bool]string{true: " here", false: " elsewhere"}[here]
			t.Run(how+where, func(t *testing.T) {
				t.Parallel()
				c := setup(t)
				settler := c.waits // the look does not run: only the commit can wake
				if !here {
					settler = nil
					c.looking(t)
				}
				placed := c.begin(prefers(draft("u-1"), "", "wait=30"))
				c.waiting(t, 1)
				await(t, nil, func() bool { return c.count(t, "SELECT count(*) FROM orders") == 1 })
				id := parse[pageBody](t, c.get("/orders")).Orders[0].ID
				asked := c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"?wait=30s", http.NoBody))
				followed := c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"/events", http.NoBody))
				c.waiting(t, 3)
				by.settle(t, c, settler, id)

				want := c.get("/orders/" + id.String()).Body.String()
				for name, answer := range map[string]<-chan *httptest.ResponseRecorder{"POST": placed, "GET": asked} {
					w := <-answer
					if w.Code != http.StatusOK || w.Body.String() != want {
						t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, want)
					}
					if applied := w.Header().Get("Preference-Applied"); (applied == "wait=30") != (name == "POST") {
						t.Errorf("%s: Preference-Applied is %q", name, applied)
					}
				}
				if o := c.order(t, id); o.Status != by.status {
					t.Errorf("the order is %s, want %s", o.Status, by.status)
				}
				if text := (<-followed).Body.String(); !strings.Contains(text, `"status":"`+string(by.status)) {
					t.Errorf("the stream ended without the outcome: %s", text)
				}
				c.waiting(t, 0)
			})
		}
	}
}

// One whose order is being cancelled waits for the end of that.
func TestAWaitGoesOnWhileTheOrderIsCancelling(t *testing.T) {
	t.Parallel()
	c := setup(t)
	id := c.placed(t, draft("u-1")).ID
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id))
	if _, err := c.commands.request(t.Context(), id, "u-1", "changed my mind"); err != nil {
		t.Fatal(err)
	}
	answer := c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"?wait=30s", http.NoBody))
	c.waiting(t, 1)
	sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), moneyBack(t, id))
	sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), stockBack(t, id))
	if o := parse[Order](t, <-answer); o.Status != Cancelled || len(o.Compensations) != 2 || o.Compensations[0].State != "DONE" {
		t.Errorf("the answer is %+v", o)
	}
}

func TestAWaitEndsWithItsTime(t *testing.T) {
	t.Parallel()
	c := setup(t)
	w := c.do(prefers(draft("u-1"), "", "wait=1"))
	if o := parse[Order](t, w); w.Code != http.StatusAccepted || o.Status != Pending || w.Header().Get("Preference-Applied") != "wait=1" {
		t.Errorf("POST: %d %s %v", w.Code, w.Body, w.Header())
	}
	at := w.Header().Get("Location")
	if again := c.get(at + "?wait=20ms"); again.Code != http.StatusOK || again.Body.String() != w.Body.String() {
		t.Errorf("GET: %d %s, want %s", again.Code, again.Body, w.Body)
	}
	c.waiting(t, 0)
}

// The time of a wait is what was asked for, and a commit that comes first ends it.
func TestTimeOfAWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := newWaiters(3)
		id := uuid.Must(uuid.NewV7())
		settledAt := time.Now().Add(4 * time.Second)
		late := Progress{Status: Confirmed, History: make([]Entry, 2), SettledAt: &settledAt}
		began := time.Now()
		for name, until := range map[string]time.Duration{"over first": 3 * time.Second, "settled first": 30 * time.Second, "over before it begins": -time.Second} {
			w, err := all.join(id)
			if err != nil {
				t.Fatal(err)
			}
			w.notify(Progress{Status: Pending, History: make([]Entry, 1)})
			go func() {
				defer w.leave()
				p, err := w.settled(t.Context(), began.Add(until))
				want := max(0, min(until, 4*time.Second))
				if took := time.Since(began); err != nil || took != want || (p.SettledAt != nil) != (until > 4*time.Second) {
					t.Errorf("%s: %s after %s, %v", name, p.Status, took, err)
				}
			}()
		}
		if _, err := all.join(id); err == nil {
			t.Error("more wait than may")
		}
		time.AfterFunc(4*time.Second, func() {
			all.notify(id, late)
			all.notify(id, Progress{Status: Pending, History: make([]Entry, 1)}) // of a look that began before
		})
		synctest.Wait()
		<-time.After(5 * time.Second)
		if n, ids := all.waiting(), len(all.of); n != 0 || ids != 0 {
			t.Errorf("%d still wait for %d orders", n, ids)
		}
	})
}

// A client that goes away leaves nobody behind.
func TestAWaiterWhoseClientLeaves(t *testing.T) {
	t.Parallel()
	c := setup(t)
	at := "/orders/" + c.placed(t, draft("u-1")).ID.String()
	for name, r := range map[string]*http.Request{
		"POST":   prefers(draft("u-1"), "", "wait=30"),
		"GET":    httptest.NewRequest(http.MethodGet, at+"?wait=30s", http.NoBody),
		"stream": httptest.NewRequest(http.MethodGet, at+"/events", http.NoBody),
	} {
		ctx, leave := context.WithCancel(t.Context())
		answer := c.begin(r.WithContext(ctx))
		c.waiting(t, 1)
		leave()
		<-answer
		if n := c.waits.waiting(); n != 0 {
			t.Errorf("%s: %d still wait", name, n)
		}
	}
}

// A preference never makes a request fail, and one that is not understood is ignored.
func TestPreferencesThatAreNotApplied(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for _, line := range []string{"respond-async", "wait", "wait=", "wait=0", "wait=-5", "wait=5s", "wait=1e1", "wait=+5", `wait="`, "wait=x, wait=5", "return=minimal;wait=5", ";,=", ""} {
		w := c.do(prefers(draft("u-1"), "", line))
		if w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "" {
			t.Errorf("%s: %d %s %v", line, w.Code, w.Body, w.Header())
		}
	}
	for line, want := range map[string]time.Duration{
		"wait=29": 29 * time.Second, "foo, WAIT = \"7\"": 7 * time.Second, "wait=31": longestWait, "wait=99999999999999999999": longestWait, "wait=-1": 0,
	} {
		if got := preferred([]string{line}); got != want {
			t.Errorf("%s waits for %s, want %s", line, got, want)
		}
	}
	at := "/orders/" + c.placed(t, draft("u-1")).ID.String()
	for wait, status := range map[string]int{"0s": 200, "0ms": 200, "31s": 422, "30001ms": 422, "5": 422, "-5s": 422, "1m": 422, "5s5s": 422, "1.5s": 422} {
		w := c.get(at + "?wait=" + wait)
		if w.Code != status {
			t.Errorf("wait=%s: %d %s, want %d", wait, w.Code, w.Body, status)
		}
		if status == 422 && !strings.Contains(w.Body.String(), "query.wait: expected a time of at most 30s, such as 5s or 500ms") {
			t.Errorf("wait=%s: %s", wait, w.Body)
		}
	}
	c.waiting(t, 0)
}

// A replay may wait, for the order that was placed then. What is stored under the key stays what it is.
func TestAReplayWaits(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	id := parse[Order](t, first).ID
	replay := c.begin(prefers(draft("u-1"), "k", "wait=30"))
	await(t, nil, func() bool { // it waits for the order of the first, and for no other any more
		c.waits.mu.Lock()
		defer c.waits.mu.Unlock()
		return len(c.waits.of[id]) == 1
	})
	sagatest.Deliver(t, c.db, waking(c.metrics, c.waits), completed(t, id))
	w := <-replay
	if o := parse[Order](t, w); w.Code != http.StatusOK || o.ID != id || o.Status != Confirmed || w.Header().Get("Location") != first.Header().Get("Location") ||
		w.Header().Get("Idempotency-Replayed") != "true" || w.Header().Get("Preference-Applied") != "wait=30" {
		t.Errorf("the replay: %d %s %v", w.Code, w.Body, w.Header())
	}
	if again := c.do(prefers(draft("u-1"), "k", "wait=30")); again.Body.String() != w.Body.String() || again.Code != w.Code {
		t.Errorf("one that comes later: %d %s", again.Code, again.Body)
	}
	if again := c.post(draft("u-1"), "k"); again.Code != first.Code || again.Body.String() != first.Body.String() {
		t.Errorf("one that does not wait: %d %s, want the first answer", again.Code, again.Body)
	}
	twice := strings.Replace(draft("u-1"), "p-2", "p-1", 1)
	for range 2 {
		if w := c.do(prefers(twice, "refused", "wait=30")); w.Code != http.StatusUnprocessableEntity || w.Header().Get("Preference-Applied") != "" {
			t.Errorf("a refusal: %d %s", w.Code, w.Body)
		}
	}
	c.waiting(t, 0)
}

// Where as many wait as may, one more is told to come again, if there is something to wait for; a preference is just
// not applied.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	c := setup(t)
	pending, settled := "/orders/"+c.placed(t, draft("u-1")).ID.String(), c.placed(t, draft("u-1")).ID
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, settled))
	c.waits.most = 0
	for target, want := range map[string]int{
		pending: 200, pending + "?wait=5s": 503, pending + "/events": 503,
		"/orders/" + settled.String() + "?wait=5s": 200, "/orders/" + settled.String() + "/events": 200,
		"/orders/" + uuid.Max.String() + "?wait=5s": 404, "/orders/" + uuid.Max.String() + "/events": 404,
	} {
		w := c.get(target)
		if w.Code != want {
			t.Errorf("GET %s: %d %s, want %d", target, w.Code, w.Body, want)
		}
		if want != 503 {
			continue
		}
		if p := parse[huma.ErrorModel](t, w); !strings.HasSuffix(p.Type, typeTooManyWait) || w.Header().Get("Retry-After") != "1" ||
			w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("GET %s: %s %v", target, w.Body, w.Header())
		}
	}
	if w := c.do(prefers(draft("u-1"), "k", "wait=5")); w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "" {
		t.Errorf("POST: %d %s %v", w.Code, w.Body, w.Header())
	}
	if w := c.do(prefers(draft("u-1"), "k", "wait=5")); w.Code != http.StatusAccepted || w.Header().Get("Preference-Applied") != "" {
		t.Errorf("a replay: %d %s %v", w.Code, w.Body, w.Header())
	}
}
