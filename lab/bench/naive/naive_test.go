package naive

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/segmentio/kafka-go"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func setup(t *testing.T, name string) *service {
	t.Helper()
	return &service{name: name, db: pgtest.New(t, name, sagatest.Migrate(pg.Migration{Name: name, FS: migrations.For(name)}))}
}

// emitted takes the one event out of a service's outbox, as its relay would publish it.
func (s *service) emitted(t *testing.T, topic string) kafka.Message {
	t.Helper()
	m := kafka.Message{Headers: []kafka.Header{{Key: "id"}}}
	err := s.db.QueryRow(t.Context(), `DELETE FROM outbox RETURNING topic, key, value, headers`).Scan(&m.Topic, &m.Key, &m.Value, &m.Headers[0].Value)
	if err != nil || m.Topic != topic {
		t.Fatalf("%s emitted %q, %v; want %s", s.name, m.Topic, err, topic)
	}
	return m
}

// One order goes through the three steps, each message twice, and comes out as the system would leave it.
func TestOneOrder(t *testing.T) {
	t.Parallel()
	order, inventory, payment := setup(t, "order"), setup(t, "inventory"), setup(t, "payment")
	if _, err := payment.db.Exec(t.Context(), `INSERT INTO accounts (id, currency, balance) VALUES ('u', 'EUR', 7), ('merchant.EUR', 'EUR', 0)`); err != nil {
		t.Fatal(err)
	}
	answer := request(http.MethodPut, "/products/p", `{"name":"P","price":1,"currency":"EUR","stock":10}`, "PUT /products/{id}", inventory.putProduct)
	if answer.Code != http.StatusCreated {
		t.Fatal(answer.Code, answer.Body)
	}
	answer = request(http.MethodPost, "/orders", `{"userId":"u","items":[{"productId":"p","quantity":3}],"amount":5,"currency":"EUR"}`, "POST /orders", order.place)
	if answer.Code != http.StatusAccepted || !strings.HasPrefix(answer.Header().Get("Location"), "/orders/") {
		t.Fatal(answer.Code, answer.Header(), answer.Body)
	}

	m := order.emitted(t, Created)
	for _, step := range []struct {
		service *service
		handle  handler
		emits   string
	}{{inventory, inventory.reserve, Reserved}, {payment, payment.charge, Paid}, {order, order.confirm, Confirmed}} {
		for range 2 {
			if err := step.service.handle(t.Context(), m, step.handle); err != nil {
				t.Fatalf("%s: %v", step.service.name, err)
			}
		}
		m = step.service.emitted(t, step.emits)
	}
	state(t, order.db, `SELECT status || ' ' || (history->1->>'event') || ' ' || (settled_at >= created_at) FROM orders`, "CONFIRMED payment.completed true")
	state(t, inventory.db, `SELECT status || ' ' || available || ' ' || reserved FROM reservations, products`, "RESERVED 7 3")
	state(t, payment.db, `SELECT status || ' ' || amount || ' ' || user_id FROM payments`, "COMPLETED 5 u")
	state(t, payment.db, `SELECT string_agg(id || ' ' || balance || ' ' || (SELECT sum(amount) FROM entries WHERE account_id = id), ', ' ORDER BY id) FROM accounts`,
		"merchant.EUR 5 5, u 2 -5")
}

func request(method, path, body, pattern string, handler http.HandlerFunc) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, handler)
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, httptest.NewRequest(method, path, strings.NewReader(body)))
	return rec
}

func state(t *testing.T, db *pgxpool.Pool, sql, want string) {
	t.Helper()
	var got string
	if err := db.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
		t.Errorf("%s: %q, %v; want %q", sql, got, err, want)
	}
}
