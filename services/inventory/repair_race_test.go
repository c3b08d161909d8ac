package inventory

import (
	"net/http"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// A reservation that the saga adds between a command's look and its insert is looked at again: it was not NONE then,
// and no fault.
func TestReserveMeetsTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	saga, err := b.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer saga.Rollback(t.Context()) //nolint:errcheck // committed below
	if _, err := saga.Exec(t.Context(), addReservationsSQL, []uuid.UUID{order(1)}, []string{"REFUSED"}, []string{"[]"}, []string{"out of stock"}, []string{""}, []string{"null"}); err != nil {
		t.Fatal(err)
	}
	api, met := b.commands(), make(chan map[string]any, 1)
	go func() {
		_, body := request(t, api, http.MethodPost, "/reservations/"+order(1).String()+"/reserve", `{"seen":"NONE","items":[{"productId":"tea","quantity":1}]}`)
		met <- body
	}()
	pgtest.AwaitLock(t, b.db)
	if err := saga.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if body := <-met; body["type"] != web.TypePrefix+facts.TypeChanged {
		t.Errorf("%v", body)
	}
	b.want([]string{"tea: 10+0"}, b.stock())
}

// What the saga reserves while a product is counted is counted, too.
func TestRecountWaitsForTheSaga(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	if _, err := b.db.Exec(t.Context(), `UPDATE products SET reserved = 5, available = 5`); err != nil { // by nobody's order
		t.Fatal(err)
	}
	saga, err := b.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer saga.Rollback(t.Context()) //nolint:errcheck // committed below
	work, err := lockForReserve(t.Context(), saga, []uuid.UUID{order(1)}, []string{"tea"})
	if err != nil {
		t.Fatal(err)
	}
	work.reserve(order(1), []Line{{"tea", 2}}, nil)
	if err := save(t.Context(), saga, work); err != nil {
		t.Fatal(err)
	}
	api, counted := b.commands(), make(chan map[string]any, 1)
	go func() {
		_, body := request(t, api, http.MethodPost, "/products/tea/recount", `{}`)
		counted <- body
	}()
	pgtest.AwaitLock(t, b.db)
	if err := saga.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := <-counted; p["reserved"] != 2.0 || p["available"] != 8.0 {
		t.Errorf("%v", p)
	}
	b.consistent()
}

// Whoever reserves, releases and counts at the same time, in whatever order: each is answered, no unit is lost and none
// is held twice.
func TestRepairsRace(t *testing.T) {
	t.Parallel()
	const orders, senders = 4, 32
	b := setup(t, Line{"tea", 1000}, Line{"cups", 1000})
	api := b.commands()
	send := func(path, body string) {
		if status, answer := request(t, api, http.MethodPost, path, body); status != http.StatusOK && status != http.StatusConflict {
			t.Errorf("%s %s: %d %v", path, body, status, answer)
		}
	}
	var all sync.WaitGroup
	for i := range senders {
		path := "/reservations/" + order(i%orders).String()
		all.Go(func() {
			for _, seen := range []string{"NONE", "RELEASED", "REFUSED"} {
				send(path+"/reserve", `{"seen":"`+seen+`","items":[{"productId":"cups","quantity":2},{"productId":"tea","quantity":1}]}`)
			}
		})
		all.Go(func() {
			for _, seen := range []string{"RESERVED", "NONE"} {
				send(path+"/release", `{"seen":"`+seen+`"}`)
			}
		})
	}
	for n := range orders {
		all.Go(func() { sagatest.Deliver(t, b.db, Choreography(), created(t, n, Line{"tea", 2}, Line{"cups", 1})) })
		all.Go(func() { sagatest.Deliver(t, b.db, Choreography(), unpaid(t, n)) })
		all.Go(func() { send("/products/tea/recount", `{}`) })
	}
	all.Wait()
	b.consistent()
}
