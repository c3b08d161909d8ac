package order

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
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

// Whatever fails of the transaction, be it a statement or the commit itself, no order, event or answer remains, and the
// same request works afterwards.
func TestNothingRemainsOfAFailure(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct{ begin, end string }{
		"statement": {"ALTER TABLE outbox RENAME TO away", "ALTER TABLE away RENAME TO outbox"},
		"commit": {`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'the commit fails'; END$$;
			CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()`,
			"DROP TRIGGER fail ON outbox"},
	} {
		for _, key := range []string{"", "k"} {
			c := setup(t)
			exec(t, c.db, fault.begin)
			w := c.post(draft("u-1"), key)
			if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "outbox") || strings.Contains(w.Body.String(), "fails") {
				t.Errorf("%s, key %q: %d %s, want a 500 that does not tell why", name, key, w.Code, w.Body)
			}
			exec(t, c.db, fault.end)
			if n := c.count(t, "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM idempotency)"); n != 0 {
				t.Errorf("%s, key %q: %d rows remain", name, key, n)
			}
			if w := c.post(draft("u-1"), key); w.Code != http.StatusAccepted || w.Header().Get("Idempotency-Replayed") != "" {
				t.Errorf("%s, key %q, afterwards: %d %s", name, key, w.Code, w.Body)
			}
		}
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
