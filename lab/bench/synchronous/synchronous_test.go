package synchronous

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// shop is the three services, each on its database, with real HTTP between them.
type shop struct {
	*testing.T
	orders                    *orders
	order, inventory, payment *pgxpool.Pool
	orderAPI                  http.Handler
	paymentServer             *httptest.Server
	loseAnswers               atomic.Bool // of payment: it does its work, and the connection breaks
}

func setup(t *testing.T) *shop {
	t.Helper()
	s := &shop{T: t}
	s.order, s.inventory, s.payment = database(t, "order"), database(t, "inventory"), database(t, "payment")
	inventory := httptest.NewServer(serve("inventory", s.inventory, registerInventory))
	t.Cleanup(inventory.Close)
	charge := serve("payment", s.payment, payments{declined: []string{"mallory"}}.register)
	s.paymentServer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.loseAnswers.Load() && r.Method == http.MethodPut {
			charge.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		charge.ServeHTTP(w, r)
	}))
	t.Cleanup(s.paymentServer.Close)
	s.orders = newOrders(inventory.URL, s.paymentServer.URL)
	s.orders.abandoned = time.Minute
	t.Cleanup(s.orders.stop)
	s.orderAPI = serve("order", s.order, s.orders.register)
	if _, err := s.inventory.Exec(t.Context(), addProductSQL, "p", "P", 1, "EUR", 10); err != nil {
		t.Fatal(err)
	}
	return s
}

func database(t *testing.T, name string) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "synchronous "+name, func(ctx context.Context, db *pgxpool.Pool) error { return pg.Migrate(ctx, db, migration(name)) })
}

func serve(name string, db *pgxpool.Pool, register func(huma.API, *pgxpool.Pool)) http.Handler {
	server := web.New(web.Config{Service: name})
	register(server.API, db)
	return server
}

func (s *shop) post(path, body string) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	s.orderAPI.ServeHTTP(rec, req)
	return rec
}

func orderOf(user string, quantity string) string {
	return `{"userId":"` + user + `","items":[{"productId":"p","quantity":` + quantity + `}],"amount":5,"currency":"EUR"}`
}

// wantState waits for clean-ups, and compares what the three databases say then.
func (s *shop) wantState(want string) {
	s.Helper()
	s.orders.cleaning.Wait()
	var order, stock, money string
	read := func(db *pgxpool.Pool, sql string, into *string) {
		if err := db.QueryRow(s.Context(), sql).Scan(into); err != nil {
			s.Fatal(err)
		}
	}
	read(s.order, `SELECT string_agg(status, ',' ORDER BY id) FROM orders`, &order)
	read(s.inventory, `SELECT coalesce((SELECT string_agg(status, ',' ORDER BY order_id) FROM reservations), 'nothing') || ' ' || available FROM products`, &stock)
	read(s.payment, `SELECT coalesce(string_agg(status, ',' ORDER BY order_id), 'nothing') FROM payments`, &money)
	if got := order + ", " + stock + ", " + money; got != want {
		s.Errorf("order, stock, money: %s; want %s", got, want)
	}
}

func TestPlaced(t *testing.T) {
	t.Parallel()
	s := setup(t)
	answer := s.post("/orders", orderOf("ada", "3"))
	if answer.Code != http.StatusCreated || !strings.HasPrefix(answer.Header().Get("Location"), "/orders/") || !strings.Contains(answer.Body.String(), "CONFIRMED") {
		t.Errorf("%d %v %s", answer.Code, answer.Header(), answer.Body)
	}
	s.wantState("CONFIRMED, RESERVED 7, COMPLETED")
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		user, quantity string
		code           int
		reason, state  string
	}{
		{"mallory", "3", http.StatusPaymentRequired, "user mallory is declined", "CANCELLED, RELEASED 10, FAILED"},
		{"ada", "11", http.StatusConflict, "out of stock: p: 11 wanted, 10 available", "CANCELLED, REFUSED 10, nothing"},
	} {
		s := setup(t)
		if answer := s.post("/orders", orderOf(tc.user, tc.quantity)); answer.Code != tc.code || !strings.Contains(answer.Body.String(), tc.reason) {
			t.Errorf("%d %s; want %d %s", answer.Code, answer.Body, tc.code, tc.reason)
		}
		s.wantState(tc.state)
	}
}

func TestPaymentDown(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.paymentServer.Close()
	if answer := s.post("/orders", orderOf("ada", "3")); answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "payment does not answer") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	s.wantState("CANCELLED, RELEASED 10, nothing")
}

// The charge is made and nobody hears of it: the money goes back, although no answer ever said that it was taken.
func TestPaymentsAnswerIsLost(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.loseAnswers.Store(true)
	if answer := s.post("/orders", orderOf("ada", "3")); answer.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	s.wantState("CANCELLED, RELEASED 10, REFUNDED")
}

// The order service died between its calls. Only a reconciliation finds what it left, once the order is old enough.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, age := range []time.Duration{2 * time.Minute, time.Second} {
		id := clock.NewID()
		d := draft{UserID: "ada", Items: []item{{"p", 2}}, Amount: 5, Currency: "EUR"}
		if err := insertOrder(t.Context(), s.order, id, d, clock.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		s.hold(id, d)
	}
	if answer := s.post("/reconcile", ""); answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), `"undone":1,"failed":0`) {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	s.wantState("CANCELLED,PENDING, RELEASED,RESERVED 8, REFUNDED,COMPLETED")
}

func (s *shop) hold(id uuid.UUID, d draft) {
	s.Helper()
	if reason, err := reserve(s.Context(), s.inventory, id, d.Items); reason != "" || err != nil {
		s.Fatal(reason, err)
	}
	if status, reason, err := (payments{}).charge(s.Context(), s.payment, id, charge{d.UserID, d.Amount, d.Currency}); status != "COMPLETED" || err != nil {
		s.Fatal(status, reason, err)
	}
}

// What is undone before it was done, because a call overtook another, is not done any more; and nothing counts twice.
func TestCallsComeTwiceAndLate(t *testing.T) {
	t.Parallel()
	s := setup(t)
	items := []item{{"p", 2}}
	late, twice := clock.NewID(), clock.NewID()
	for _, step := range []struct {
		order   uuid.UUID
		release bool
		reason  string
	}{
		{late, true, ""}, {late, false, "released before it was reserved"},
		{twice, false, ""}, {twice, false, ""}, {twice, true, ""}, {twice, true, ""}, {twice, false, "released before"},
	} {
		var reason string
		var err error
		if step.release {
			err = release(t.Context(), s.inventory, step.order)
		} else {
			reason, err = reserve(t.Context(), s.inventory, step.order, items)
		}
		if err != nil || reason != step.reason {
			t.Errorf("%+v: %q, %v", step, reason, err)
		}
	}
	if _, err := s.payment.Exec(t.Context(), refundSQL, late, clock.NewID()); err != nil {
		t.Fatal(err)
	}
	if status, _, err := (payments{}).charge(t.Context(), s.payment, late, charge{"ada", 5, "EUR"}); status != "REFUNDED" || err != nil {
		t.Errorf("a late charge: %s, %v", status, err)
	}
	if err := insertOrder(t.Context(), s.order, late, draft{Amount: 1}, clock.Now()); err != nil {
		t.Fatal(err)
	}
	s.wantState("PENDING, RELEASED,RELEASED 10, REFUNDED")
}
