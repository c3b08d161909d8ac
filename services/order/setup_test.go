package order

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var schema = sagatest.Migrate(idempotency.Migration(), pg.Migration{Name: "order", FS: migrations.For("order")})

func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "order", schema)
}

// client talks to the service's real handlers, without a network between.
type client struct {
	http.Handler
	db       *pgxpool.Pool
	metrics  *metrics
	placer   *placer
	commands *commands
	clock    *atomic.Pointer[time.Time] // of commands; nil: the real one
	commits  *atomic.Int64              // of postings
	waits    *waiters                   // which nobody looks for; see looking
}

func setup(t testing.TB) client {
	t.Helper()
	return serve(t, database(t))
}

// serve is one instance of the service on a database.
func serve(t testing.TB, db *pgxpool.Pool) client {
	t.Helper()
	m := newMetrics()
	p := &placer{db: db, metrics: m}
	var commits atomic.Int64
	batcher := pg.NewBatcher(postingsPerCommit, commitTimeout, func(ctx context.Context, postings []posting) ([]pg.Result[answer], error) {
		commits.Add(1)
		return p.place(ctx, postings)
	})
	t.Cleanup(batcher.Wait)
	var set atomic.Pointer[time.Time]
	waits := newWaiters(5000)
	commands := &commands{db: db, metrics: m, waits: waits, now: func() time.Time {
		if at := set.Load(); at != nil {
			return *at
		}
		return clock.Now()
	}}
	h := handlers{db: db, place: batcher.Do, cancel: commands.request, reconcile: commands.reconcile, waits: waits}
	s := web.New(web.Config{Service: "order"})
	h.register(s.API)
	return client{Handler: s, db: db, metrics: m, placer: p, commands: commands, clock: &set, commits: &commits, waits: waits}
}

func (c client) post(body, key string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/orders", bytes.NewBufferString(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	return c.do(r)
}

func (c client) get(target string) *httptest.ResponseRecorder {
	return c.do(httptest.NewRequest(http.MethodGet, target, http.NoBody))
}

func (c client) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

// placed posts an order and returns it.
func (c client) placed(t testing.TB, body string) Order {
	t.Helper()
	w := c.post(body, "")
	if w.Code != http.StatusAccepted {
		t.Fatalf("POST /orders %s: %d %s", body, w.Code, w.Body)
	}
	return parse[Order](t, w)
}

// order reads an order over HTTP.
func (c client) order(t testing.TB, id uuid.UUID) Order {
	t.Helper()
	w := c.get("/orders/" + id.String())
	if w.Code != http.StatusOK {
		t.Fatalf("GET order %s: %d %s", id, w.Code, w.Body)
	}
	return parse[Order](t, w)
}

// count runs a query for one number.
func (c client) count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	if err := c.db.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func parse[T any](t testing.TB, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("parse %s: %v", w.Body, err)
	}
	return v
}

// draft is the body of a valid request of a user.
func draft(user string) string {
	return fmt.Sprintf(`{"userId":%q,"items":[{"productId":"p-1","quantity":2},{"productId":"p-2","quantity":1}],"amount":4200,"currency":"EUR"}`, user)
}

func at(seconds int) time.Time {
	return time.Date(2026, 1, 31, 12, 0, seconds, 0, time.UTC)
}
