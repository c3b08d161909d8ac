package order

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// statements counts what a pool's connections are asked.
type statements struct {
	mu   sync.Mutex
	of   map[string]int
	rows int64 // returned to all
}

func (s *statements) count(sql string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[sql]++
}

func (s *statements) returned() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows
}

func (s *statements) times(sql string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[sql]
}

func (s *statements) counted() (looks, others int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sql, n := range s.of {
		if sql == progressSinceSQL {
			looks += n
		} else {
			others += n
		}
	}
	return looks, others
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	s.count(q.SQL)
	return ctx
}

func (s *statements) TraceQueryEnd(_ context.Context, _ *pgx.Conn, q pgx.TraceQueryEndData) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows += q.CommandTag.RowsAffected()
}

func (s *statements) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	return ctx
}
func (s *statements) TraceBatchQuery(_ context.Context, _ *pgx.Conn, q pgx.TraceBatchQueryData) {
	s.count(q.SQL)
}
func (s *statements) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// counting is a second pool on the database, whose statements are counted.
func counting(t *testing.T, db *pgxpool.Pool) (*pgxpool.Pool, *statements) {
	t.Helper()
	s := &statements{of: map[string]int{}}
	cfg := db.Config()
	cfg.ConnConfig.Tracer = s
	cfg.MaxConns = 4
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, s
}

// 2,000 clients wait, in all three ways. While nothing happens they cost one statement a look; the orders that the
// instance settles itself cost none, and those that another one settles one look, in whatever number.
func TestTwoThousandWait(t *testing.T) {
	t.Parallel()
	const each = 500 // orders of those who GET, of those who stream, of both; and of those who POST
	db := database(t)
	counted, asked := counting(t, db)
	c := serve(t, counted)
	other := client{db: db, metrics: newMetrics()} // does the work of the consumer, and of another instance
	c.looking(t)

	var answers []<-chan *httptest.ResponseRecorder
	for range each {
		answers = append(answers, c.begin(prefers(draft("u-1"), "", "wait=30")))
	}
	c.waiting(t, each)
	await(t, nil, func() bool { return other.count(t, "SELECT count(*) FROM orders") == each })
	var ids []uuid.UUID
	for range 2 * each {
		ids = append(ids, uuid.Must(uuid.NewV7()))
	}
	if _, err := db.Exec(t.Context(), `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
		SELECT id, 'u-2', '[]', 1, 'EUR', 'PENDING', '[{"at":"2026-01-31T12:00:00Z","status":"PENDING","event":"order.created"}]', now()
		FROM unnest($1::uuid[]) AS id`, ids); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if i < each {
			answers = append(answers, c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"?wait=30s", http.NoBody)))
		}
		if i >= each || i%2 == 0 {
			answers = append(answers, c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"/events", http.NoBody)))
		}
	}
	for _, id := range ids[:each/2] {
		answers = append(answers, c.begin(httptest.NewRequest(http.MethodGet, "/orders/"+id.String()+"?wait=30s", http.NoBody)))
	}
	if len(answers) != 2000 {
		t.Fatalf("%d clients", len(answers))
	}
	c.waiting(t, len(answers))
	await(t, nil, func() bool { return asked.times(getSQL) == len(answers)-each }) // each has read its order
	inserted, err := db.Query(t.Context(), "SELECT id FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(inserted, pgx.RowTo[uuid.UUID])
	if err != nil {
		t.Fatal(err)
	}

	// Nothing happens.
	before, began := asked.counted()
	await(t, nil, func() bool { looks, _ := asked.counted(); return looks >= before+2 }) // one is over that began when all had been read
	rows := asked.returned()
	await(t, nil, func() bool { looks, _ := asked.counted(); return looks >= before+6 })
	if n := asked.returned() - rows; n != 0 {
		t.Errorf("the looks return %d rows of orders that are what they were", n)
	}
	if _, others := asked.counted(); others != began {
		t.Errorf("%d statements besides the looks while all wait", others-began)
	}
	if n := counted.Stat().AcquiredConns(); n > 1 {
		t.Errorf("%d connections are held, want at most that of a look", n)
	}

	// This instance settles half of the orders, another one the rest.
	settle := func(w *waiters, ids []uuid.UUID) {
		records := make([]broker.Record, len(ids))
		for i, id := range ids {
			records[i] = completed(t, id)
		}
		sagatest.Deliver(t, db, waking(other.metrics, w), records...)
	}
	settle(c.waits, all[:len(all)/2])
	settle(nil, all[len(all)/2:])
	for _, answer := range answers {
		if w := <-answer; w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"status":"CONFIRMED"`) {
			t.Fatalf("%d %s, want a CONFIRMED order", w.Code, w.Body)
		}
	}
	if _, others := asked.counted(); others != began {
		t.Errorf("%d statements besides the looks to wake all", others-began)
	}
	if n := c.waits.waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}
