package inventory

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// moved lists a product's movements, the oldest first, as "kind units (delta): stock".
func (b bundle) moved(id string) []string {
	b.Helper()
	all, err := listMovements(b.Context(), b.db, id, 1<<62, 1000)
	if err != nil {
		b.Fatal(err)
	}
	out := make([]string, len(all))
	for i, m := range all {
		out[len(all)-1-i] = fmt.Sprintf("%s %d (%+d): %d", m.Kind, m.Units, m.Delta, m.Stock)
	}
	return out
}

// move posts a movement and wants an answer of this status.
func (b bundle) move(api http.Handler, id, body string, status int) map[string]any {
	b.Helper()
	got, answer := request(b.T, api, http.MethodPost, "/products/"+id+"/movements", body)
	if got != status {
		b.Errorf("%s of %s: %d %v, want %d", body, id, got, answer, status)
	}
	return answer
}

// However often and by however many a movement is asked for, it is made once, and each gets the same answer. Its id is
// good for nothing else.
func TestMovementIsMadeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10}, Line{"cup", 10})
	sagatest.Drain(t, b.db)
	api := b.api()
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			if diff := cmp.Diff(movementOf(1, "receipt", 5, 5, 15), b.move(api, "tea", movement(1, "receipt", 5), 201)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	all.Wait()
	b.move(api, "tea", movement(2, "loss", 1), 201)
	if diff := cmp.Diff(movementOf(1, "receipt", 5, 5, 15), b.move(api, "tea", movement(1, "receipt", 5), 201)); diff != "" {
		t.Errorf("after another one (-want +got):\n%s", diff)
	}
	for _, other := range []struct{ id, body string }{
		{"cup", movement(1, "receipt", 5)},
		{"tea", movement(1, "receipt", 6)},
		{"tea", movement(1, "loss", 5)},
		{"tea", strings.TrimSuffix(movement(1, "receipt", 5), "}") + `, "note": "again"}`},
	} {
		answer := b.move(api, other.id, other.body, 422)
		if answer["type"] != web.TypePrefix+"movement-id-reused" || answer["errors"].([]any)[0].(map[string]any)["location"] != "body.movementId" {
			t.Errorf("%s of %s: %v", other.body, other.id, answer)
		}
	}
	b.want([]string{"count 10 (+10): 10", "receipt 5 (+5): 15", "loss 1 (-1): 14"}, b.moved("tea"))
	b.want([]string{"count 10 (+10): 10"}, b.moved("cup"))
	b.want([]string{"tea v2: tea, 100 EUR, IN_STOCK", "tea v3: tea, 100 EUR, IN_STOCK"}, b.products(sagatest.Drain(t, b.db)))
	b.consistent()
}

// One id asked for of two products at once is one movement.
func TestMovementIDsRace(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10}, Line{"cup", 10})
	api := b.api()
	const ids = 20
	var all sync.WaitGroup
	for n := range ids {
		for _, product := range []string{"tea", "cup"} {
			all.Go(func() {
				status, answer := request(t, api, http.MethodPost, "/products/"+product+"/movements", movement(n, "receipt", 1))
				if status != http.StatusCreated && answer["type"] != web.TypePrefix+"movement-id-reused" {
					t.Errorf("%d %v", status, answer)
				}
			})
		}
	}
	all.Wait()
	if n := len(b.moved("tea")) + len(b.moved("cup")); n != 2+ids {
		t.Errorf("%d movements, want %d", n, 2+ids)
	}
	b.consistent()
}

// Movements, orders and changes of the name at the same time: no unit is lost, none appears, and the books hold.
func TestMovementsRaceWithOrders(t *testing.T) {
	t.Parallel()
	const orders, each = 24, 10
	b := setup(t, Line{"tea", 1000})
	api := b.api()
	var all sync.WaitGroup
	for n := range orders {
		all.Go(func() {
			sagatest.Deliver(t, b.db, Choreography(), created(t, n, Line{"tea", 2}))
			if n%2 == 0 {
				sagatest.Deliver(t, b.db, Choreography(), unpaid(t, n))
			}
		})
	}
	for n := range each {
		all.Go(func() { b.move(api, "tea", movement(100+n, "receipt", 7), 201) })
		all.Go(func() { b.move(api, "tea", movement(200+n, "loss", 3), 201) })
		all.Go(func() {
			if status := send(t, api, http.MethodPut, "/products/tea", fmt.Sprintf(`{"name": "tea %d", "price": 100, "currency": "EUR"}`, n), "If-Match", "*").Code; status != http.StatusOK {
				t.Errorf("name %d: %d", n, status)
			}
		})
	}
	all.Wait()
	p, _, err := findProduct(t.Context(), b.db, "tea")
	if err != nil || p.Reserved != orders {
		t.Errorf("%+v, %v", p, err)
	}
	b.consistent()
}

// A count says what is on the shelf, whatever is reserved. Where that is less than orders hold, nothing is sold until
// enough has come.
func TestCountBelowWhatIsReserved(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	b.deliver(created(t, 1, Line{"tea", 4}))
	api := b.api()
	sagatest.Drain(t, b.db)

	b.move(api, "tea", movement(1, "count", 1), 201)
	b.want([]string{"tea: -3+4"}, b.stock())
	b.want([]string{"tea v2: tea, 100 EUR, SOLD_OUT"}, b.products(sagatest.Drain(t, b.db)))
	b.deliver(created(t, 2, Line{"tea", 1}))
	if r := b.reservations()[1]; r.Status != Refused {
		t.Errorf("what is not there was reserved: %+v", r)
	}
	b.audited()
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK || body["available"] != -3.0 {
		t.Errorf("recount: %d %v", status, body)
	}
	b.move(api, "tea", movement(2, "receipt", 3), 201)
	b.want([]string{"tea: 0+4"}, b.stock())
	b.deliver(unpaid(t, 1))
	b.want([]string{"tea: 4+0"}, b.stock())
	b.want([]string{"count 10 (+10): 10", "count 1 (-9): 1", "receipt 3 (+3): 4"}, b.moved("tea"))
	b.consistent()
}

// What is found by who pages through a product's movements is all of them, the newest first.
func TestMovementsPage(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 0})
	api := b.api()
	for n := range 5 {
		b.move(api, "tea", movement(n+1, "receipt", n+1), 201)
	}
	for _, limit := range []int{1, 2, 3, 6, 100} {
		var got []float64
		for cursor := ""; ; {
			_, page := request(t, api, http.MethodGet, fmt.Sprintf("/products/tea/movements?limit=%d%s", limit, cursor), "")
			for _, m := range page["movements"].([]any) {
				got = append(got, m.(map[string]any)["units"].(float64))
			}
			next, more := page["nextCursor"].(string)
			if !more {
				break
			}
			cursor = "&cursor=" + next
		}
		if diff := cmp.Diff([]float64{5, 4, 3, 2, 1, 0}, got); diff != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, diff)
		}
	}
}

// Reserving and releasing pay nothing for movements: no trigger is invoked.
func TestOrdersPayNothingForMovements(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	rows, err := b.db.Query(t.Context(), `EXPLAIN (ANALYZE, COSTS OFF) `+moveUnitsSQL, []string{"tea"}, []int64{1})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var line string
	for rows.Next() {
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "Trigger") {
			t.Error(line)
		}
	}
	if rows.Err() != nil || !strings.Contains(line, "Execution Time") {
		t.Errorf("%s, %v", line, rows.Err())
	}
	b.want([]string{"tea: 9+1"}, b.stock())
}

// The stock that a client has read is not written back over what came meanwhile.
func TestPutDoesNotUndoAMovement(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 100})
	api := b.api()
	etag := b.etag(api)
	b.move(api, "tea", movement(1, "receipt", 50), 201)
	b.putTea(api, `{"name": "tea", "price": 101, "currency": "EUR", "stock": 100}`, []string{"If-Match", etag}, "422 invalid-request body.stock")
	b.putTea(api, `{"name": "tea", "price": 101, "currency": "EUR", "stock": 150}`, []string{"If-Match", etag}, "200")
	b.putTea(api, `{"name": "tea", "price": 102, "currency": "EUR"}`, []string{"If-Match", b.etag(api)}, "200")
	b.want([]string{"tea: 150+0"}, b.stock())
	b.consistent()
}

// Two who create a product at once: one does. Two who restore its row, whose movements are there, likewise; what they
// say is a count.
func TestPutRaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	api := b.api()
	for _, want := range [][]string{{"count 10 (+10): 10"}, {"count 10 (+10): 10", "receipt 5 (+5): 15", "count 10 (-5): 10"}} {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				status, body := request(t, api, http.MethodPut, "/products/tea", `{"name": "tea", "price": 100, "currency": "EUR", "stock": 10}`)
				if status != http.StatusOK && status != http.StatusCreated || body["stock"] != 10.0 {
					t.Errorf("%d %v", status, body)
				}
			})
		}
		all.Wait()
		b.want(want, b.moved("tea"))
		b.consistent()
		if len(want) == 1 {
			b.move(api, "tea", movement(1, "receipt", 5), 201)
			b.exec(`DELETE FROM products`)
		}
	}
}

// exec changes the database as no service does.
func (b bundle) exec(sql string, args ...any) {
	b.Helper()
	if _, err := b.db.Exec(b.Context(), sql, args...); err != nil {
		b.Fatalf("%s: %v", sql, err)
	}
}

// etag is the one of tea.
func (b bundle) etag(api http.Handler) string {
	b.Helper()
	return send(b.T, api, http.MethodGet, "/products/tea", "").Header().Get("ETag")
}

// putTea puts tea with headers and wants such an answer: the status, and of a problem its type and its first place.
func (b bundle) putTea(api http.Handler, body string, header []string, want string) {
	b.Helper()
	w := send(b.T, api, http.MethodPut, "/products/tea", body, header...)
	if got := shown(b.T, w); got != want {
		b.Errorf("PUT %s with %q: %s, want %s\n%s", body, header, got, want, w.Body)
	}
}

// What a writer must say of the product that it changes, and what it may send again.
func TestPutConditions(t *testing.T) {
	t.Parallel()
	const (
		first   = `{"name": "tea", "price": 100, "currency": "EUR", "stock": 10}`
		dearer  = `{"name": "tea", "price": 110, "currency": "EUR"}`
		dearest = `{"name": "tea", "price": 120, "currency": "EUR"}`
	)
	b := setup(t)
	api := b.api()
	b.putTea(api, first, []string{"If-Match", "*"}, "412 version-conflict ")
	b.putTea(api, first, []string{"If-Match", `"1"`}, "412 version-conflict ")
	b.putTea(api, first, []string{"If-None-Match", "*", "If-Match", "*"}, "422 invalid-request header.If-None-Match")
	b.putTea(api, first, []string{"If-None-Match", "*"}, "201")
	b.putTea(api, first, []string{"If-None-Match", "*"}, "200")
	b.putTea(api, first, nil, "200")
	b.putTea(api, dearer, []string{"If-None-Match", "*"}, "412 version-conflict ")
	b.putTea(api, dearer, nil, "428 precondition-required header.If-Match")
	was := b.etag(api)
	b.deliver(created(t, 1, Line{"tea", 3}))
	if is := b.etag(api); is == was {
		t.Errorf("the ETag of another product is the same: %s", is)
	}
	b.putTea(api, dearer, []string{"If-None-Match", b.etag(api)}, "412 version-conflict ")
	b.putTea(api, dearer, []string{"If-Match", "W/" + was}, "412 version-conflict ")
	b.putTea(api, dearer, []string{"If-Match", was}, "200") // an order in between is nobody's change of the price
	b.putTea(api, dearer, []string{"If-Match", was}, "200") // sent again
	b.putTea(api, dearest, []string{"If-Match", was}, "412 version-conflict ")
	b.putTea(api, dearest, []string{"If-Match", `"x", ` + b.etag(api)}, "200")
	b.putTea(api, first, nil, "428 precondition-required header.If-Match")
	p, _, err := findProduct(t.Context(), b.db, "tea")
	if err != nil || p.Version != 3 || p.Price != 120 || p.Available != 7 {
		t.Errorf("%+v, %v", p, err)
	}
	w := send(t, api, http.MethodGet, "/products/tea", "", "If-None-Match", b.etag(api))
	if w.Code != http.StatusNotModified {
		t.Errorf("what the client has: %d", w.Code)
	}
	b.deliver(unpaid(t, 1))
	b.want([]string{"tea: 10+0"}, b.stock())
	b.consistent()
}

// A movement that waits for an order's transaction counts what that has changed.
func TestCountWaitsForTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	saga, err := b.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer saga.Rollback(t.Context()) //nolint:errcheck // committed below
	if _, err := saga.Exec(t.Context(), moveUnitsSQL, []string{"tea"}, []int64{4}); err != nil {
		t.Fatal(err)
	}
	counted := make(chan error, 1)
	go func() {
		_, _, _, err := move(t.Context(), b.db, Movement{ID: clock.NewID(), ProductID: "tea", Kind: Count, Units: 8})
		counted <- err
	}()
	pgtest.AwaitLock(t, b.db)
	if err := saga.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-counted; err != nil {
		t.Error(err)
	}
	b.want([]string{"tea: 4+4"}, b.stock())
}
