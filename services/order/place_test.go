package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/pgtest"
	"github.com/converge-dev/converge/pkg/sagatest"
	"github.com/converge-dev/converge/pkg/web"
)

// together sends n requests at the same time and returns the responses.
func together(n int, send func(i int) *httptest.ResponseRecorder) []*httptest.ResponseRecorder {
	responses := make([]*httptest.ResponseRecorder, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range responses {
		wg.Go(func() {
			<-start
			responses[i] = send(i)
		})
	}
	close(start)
	wg.Wait()
	return responses
}

func TestConcurrentPostsShareCommits(t *testing.T) {
	t.Parallel()
	c := setup(t)
	const n = 1000
	want := map[string]int{}
	for _, w := range together(n, func(i int) *httptest.ResponseRecorder {
		key := ""
		if i%3 == 0 {
			key = uuid.NewString()
		}
		return c.post(draft(fmt.Sprintf("u-%d", i)), key)
	}) {
		if w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		o := parse[Order](t, w)
		want[o.ID.String()+" of "+o.UserID]++
	}

	got := map[string]int{}
	for _, r := range sagatest.Drain(t, c.db) {
		e := sagatest.Decode(t, event.OrderCreated, r)
		got[e.OrderID.String()+" of "+e.UserID]++
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) != n {
		t.Errorf("%d orders and their order.created (-want +got):\n%s", len(want), diff)
	}
	if stored := c.count(t, "SELECT count(*) FROM orders"); stored != n {
		t.Errorf("%d orders are stored", stored)
	}
	t.Logf("%d orders in %d commits", n, c.commits.Load())
}

// Two instances of the service get 64 requests with one key: one order, and everybody who is told of it is told the same.
func TestConcurrentPostsOfOneKey(t *testing.T) {
	t.Parallel()
	c := setup(t)
	instances := []client{c, serve(t, c.db)}
	bodies := map[string]int{}
	for _, w := range together(64, func(i int) *httptest.ResponseRecorder {
		return instances[i%2].post(draft("u-1"), "one")
	}) {
		switch w.Code {
		case http.StatusAccepted:
			bodies[w.Header().Get("Location")+w.Body.String()]++
		case http.StatusConflict:
			if p := parse[huma.ErrorModel](t, w); !strings.HasSuffix(p.Type, typeKeyInUse) || p.Errors[0].Location != "header.Idempotency-Key" {
				t.Errorf("conflict: %s", w.Body)
			}
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if len(bodies) != 1 {
		t.Errorf("%d different answers: %v", len(bodies), bodies)
	}
	w := instances[0].post(draft("u-1"), "one")
	if bodies[w.Header().Get("Location")+w.Body.String()] == 0 {
		t.Errorf("later, the answer is another: %s", w.Body)
	}
	orders, events := c.count(t, "SELECT count(*) FROM orders"), len(sagatest.Drain(t, c.db))
	if orders != 1 || events != 1 {
		t.Errorf("%d orders and %d events, want one of each", orders, events)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	if first.Code != http.StatusAccepted || first.Header().Get("Idempotency-Replayed") != "" {
		t.Fatalf("%d %v", first.Code, first.Header())
	}
	twice := `{"userId":"u-1","items":[{"productId":"p","quantity":1},{"productId":"p","quantity":1}],"amount":1,"currency":"EUR"}`
	refused := c.post(twice, "refused")
	if refused.Code != http.StatusUnprocessableEntity {
		t.Fatalf("%d %s", refused.Code, refused.Body)
	}

	for name, q := range map[string]struct {
		body, key string
		want      *httptest.ResponseRecorder
	}{
		"same":                {draft("u-1"), "k", first},
		"same, quoted key":    {draft("u-1"), `"k"`, first},
		"same, other spacing": {strings.NewReplacer(":", " : ", ",", "\n,").Replace(draft("u-1")), "k", first},
		"refusal":             {twice, "refused", refused},
	} {
		w := c.post(q.body, q.key)
		if w.Header().Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s: not marked as replayed: %v", name, w.Header())
		}
		for _, h := range []string{"Location", "Content-Type"} {
			if got, want := w.Header().Get(h), q.want.Header().Get(h); got != want {
				t.Errorf("%s: %s is %q, want %q", name, h, got, want)
			}
		}
		if w.Code != q.want.Code || w.Body.String() != q.want.Body.String() {
			t.Errorf("%s: %d %s, want %d %s", name, w.Code, w.Body, q.want.Code, q.want.Body)
		}
	}

	for name, body := range map[string]string{
		"other amount": strings.Replace(draft("u-1"), "4200", "4201", 1),
		"other lines":  twice,
	} {
		w := c.post(body, "k")
		if p := parse[huma.ErrorModel](t, w); w.Code != http.StatusUnprocessableEntity || !strings.HasSuffix(p.Type, typeKeyReused) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another user's": c.post(draft("u-2"), "k"),
		"another key":    c.post(draft("u-1"), "K"),
		"no key":         c.post(draft("u-1"), ""),
	} {
		if w.Code != http.StatusAccepted || w.Header().Get("Location") == first.Header().Get("Location") || w.Header().Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %v, want an order of its own", name, w.Code, w.Header())
		}
	}
	if n := c.count(t, "SELECT count(*) FROM orders"); n != 4 {
		t.Errorf("%d orders, want 4", n)
	}
}

// One commit takes whatever comes together: new keys, replays, a reused key, a refusal, and requests without a key.
func TestMixedBatch(t *testing.T) {
	t.Parallel()
	c := setup(t)
	post := func(user, key string, amount int64) posting {
		d := Draft{UserID: user, Items: []Item{{"p-1", 1}}, Amount: amount, Currency: "EUR"}
		if amount == 0 {
			d.Items = []Item{{"p-1", 1}, {"p-1", 1}}
		}
		return newPosting(t.Context(), d, key, time.Now())
	}
	place := func(postings ...posting) (lines []string) {
		results, err := c.placer.place(t.Context(), postings)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if p := (*huma.ErrorModel)(nil); errors.As(r.Err, &p) {
				lines = append(lines, fmt.Sprint(p.Status, " ", p.Type))
			} else {
				lines = append(lines, fmt.Sprint(r.Value.Status, " ", r.Value.Header["Location"], " ", r.Value.replayed))
			}
		}
		return lines
	}
	a, b, refused, plain := post("u-1", "a", 1), post("u-1", "b", 1), post("u-1", "r", 0), post("u-1", "", 1)
	where := func(p posting) string { return "/orders/" + p.order.ID.String() }
	got := place(a, b, refused, plain)
	want := []string{"202 " + where(a) + " false", "202 " + where(b) + " false", "422  false", "202 " + where(plain) + " false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}

	other := post("u-2", "a", 1)
	got = place(post("u-1", "b", 1), other, post("u-1", "a", 2), post("u-1", "r", 0), post("u-2", "a", 1), post("u-1", "a", 1))
	want = []string{
		"202 " + where(b) + " true", "202 " + where(other) + " false", "422 " + web.TypePrefix + typeKeyReused,
		"422  true", "409 " + web.TypePrefix + typeKeyInUse, "202 " + where(a) + " true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("then (-want +got):\n%s", diff)
	}
	if orders, events := c.count(t, "SELECT count(*) FROM orders"), len(sagatest.Drain(t, c.db)); orders != 4 || events != 4 {
		t.Errorf("%d orders and %d events, want 4", orders, events)
	}
	if n := testutil.ToFloat64(c.metrics.orders.WithLabelValues("PENDING")); n != 4 {
		t.Errorf("%v orders counted as accepted, want 4", n)
	}
}

// A replay answers what was stored then, though the order has settled since.
func TestReplayIsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	id := parse[Order](t, first).ID
	sagatest.Drain(t, c.db)
	sagatest.Deliver(t, c.db, choreography(c.metrics), completed(t, id))
	if again := c.post(draft("u-1"), "k"); again.Body.String() != first.Body.String() || again.Code != first.Code {
		t.Errorf("%d %s, want %s", again.Code, again.Body, first.Body)
	}
	if o := c.order(t, id); o.Status != Confirmed {
		t.Errorf("the order is %s", o.Status)
	}
}

// While a transaction is at work on a key, nobody else is; when that is rolled back, the key is free.
func TestKeyOfAnUnfinishedRequest(t *testing.T) {
	t.Parallel()
	c := setup(t)
	err := pg.InTx(t.Context(), c.db, func(tx pgx.Tx) error {
		var d Draft
		if err := json.Unmarshal([]byte(draft("u-1")), &d); err != nil {
			return err
		}
		key := newPosting(t.Context(), d, "k", time.Now()).key
		if _, err := c.placer.keys.Claim(t.Context(), tx, []idempotency.Key{*key}); err != nil {
			return err
		}
		if w := c.post(draft("u-1"), "k"); w.Code != http.StatusConflict {
			t.Errorf("meanwhile: %d %s, want 409", w.Code, w.Body)
		}
		return errRollback
	})
	if !errors.Is(err, errRollback) {
		t.Fatal(err)
	}
	if w := c.post(draft("u-1"), "k"); w.Code != http.StatusAccepted {
		t.Errorf("after the rollback: %d %s", w.Code, w.Body)
	}
}

var errRollback = errors.New("roll back")

// If anything of the transaction fails, neither order nor event nor answer remains, and the key works afterwards.
func TestNothingRemainsOfAFailure(t *testing.T) {
	t.Parallel()
	c := setup(t)
	exec(t, c.db, "ALTER TABLE outbox RENAME TO away")
	w := c.post(draft("u-1"), "k")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "outbox") {
		t.Errorf("%d %s, want a 500 that does not tell why", w.Code, w.Body)
	}
	exec(t, c.db, "ALTER TABLE away RENAME TO outbox")
	if n := c.count(t, "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM idempotency)"); n != 0 {
		t.Errorf("%d rows remain", n)
	}
	if w := c.post(draft("u-1"), "k"); w.Code != http.StatusAccepted || w.Header().Get("Idempotency-Replayed") != "" {
		t.Errorf("afterwards: %d %s", w.Code, w.Body)
	}
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first := c.post(draft("u-1"), "k")
	c.placer.keys.Now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	if w := c.post(draft("u-1"), "k"); w.Code != http.StatusAccepted || w.Body.String() == first.Body.String() {
		t.Errorf("a day later: %d %s, want an order of its own", w.Code, w.Body)
	}
}

// While the database is away a POST is refused as worth trying again, and trying again makes one order.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t)
	db, err := pgxpool.New(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if err := schema(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	c := serve(t, db)
	id := c.placed(t, draft("u-1")).ID

	server.Stop(t)
	for target, w := range map[string]*httptest.ResponseRecorder{
		"POST":     c.post(draft("u-1"), "k"),
		"GET":      c.get("/orders/" + id.String()),
		"GET list": c.get("/orders"),
	} {
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %v %s, want 503 and when to try again", target, w.Code, w.Header(), w.Body)
		}
	}
	server.Start(t)

	deadline := time.Now().Add(time.Minute)
	w := c.post(draft("u-1"), "k")
	for w.Code == http.StatusServiceUnavailable && time.Now().Before(deadline) {
		w = c.post(draft("u-1"), "k")
	}
	if w.Code != http.StatusAccepted {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	orders, events := c.count(t, "SELECT count(*) FROM orders"), len(sagatest.Drain(t, db))
	if orders != 2 || events != 2 {
		t.Errorf("%d orders and %d events, want the two that were answered", orders, events)
	}
}

func exec(t testing.TB, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
