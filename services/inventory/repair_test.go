package inventory

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// commands is the API of repairs.
func (b bundle) commands() http.Handler {
	server := web.New(web.Config{Service: "inventory"})
	(&repairer{db: b.db}).register(server.API)
	return server
}

// bring makes the n-th order's reservation what a saga of an earlier time made it; there is plenty of tea and no cups.
func (b bundle) bring(n int, status string) {
	b.Helper()
	switch status {
	case "RESERVED":
		b.deliver(created(b.T, n, Line{"tea", 2}))
	case "RELEASED":
		b.deliver(created(b.T, n, Line{"tea", 2}))
		b.deliver(unpaid(b.T, n))
	case "REFUSED":
		b.deliver(created(b.T, n, Line{"cups", 2}))
	}
}

// Each command from each status: what comes of it, and who is told.
func TestRepairCommands(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 100}, Line{"cups", 0})
	api := b.commands()
	released := []string{": released"}
	n := 0
	for _, tc := range []struct {
		command, was, is string
		told             []string
	}{
		{"reserve", "NONE", "RESERVED", nil}, {"reserve", "RESERVED", "RESERVED", nil}, {"reserve", "RELEASED", "RESERVED", nil}, {"reserve", "REFUSED", "RESERVED", nil},
		{"release", "NONE", "RELEASED", released}, {"release", "RESERVED", "RELEASED", released}, {"release", "RELEASED", "RELEASED", nil}, {"release", "REFUSED", "REFUSED", released},
	} {
		n++
		t.Run(tc.command+" "+tc.was, func(t *testing.T) {
			b.T = t
			b.bring(n, tc.was)
			path := "/reservations/" + order(n).String() + "/" + tc.command
			send := func(seen string) (int, map[string]any) {
				items := `,"items":[{"productId":"tea","quantity":3}]`
				if tc.command == "release" {
					items = ""
				}
				return request(t, api, http.MethodPost, path, fmt.Sprintf(`{"seen":%q%s}`, seen, items))
			}
			before := b.reservations()
			other := map[bool]string{true: "RELEASED", false: "NONE"}[tc.was == "NONE"]
			status, body := send(other)
			if moved := tc.was != map[string]string{"reserve": "RESERVED", "release": "RELEASED"}[tc.command]; moved != (status == http.StatusConflict && body["type"] == web.TypePrefix+facts.TypeChanged) {
				t.Errorf("seen as %s: %d %v", other, status, body)
			}
			if diff := cmp.Diff(before, b.reservations()); diff != "" {
				t.Errorf("what was seen was not so, and it changed (-before +after):\n%s", diff)
			}
			if status, body = send(tc.was); status != http.StatusOK || body["status"] != tc.is || body["member"] != (tc.is == "RESERVED") {
				t.Fatalf("%d %v, want %s", status, body, tc.is)
			}
			var said []string
			for _, r := range b.ofOrders(sagatest.Drain(t, b.db)) {
				said = append(said, strings.TrimPrefix(told(t, r), name(order(n))))
			}
			if diff := cmp.Diff(tc.told, said); diff != "" {
				t.Errorf("told (-want +got):\n%s", diff)
			}
			b.consistent()
			after := b.stock()
			if send(tc.is); !cmp.Equal(after, b.stock()) {
				t.Errorf("sent again it changed %v to %v", after, b.stock())
			}
			sagatest.Drain(t, b.db)
		})
	}
	got, err := source.Get(t.Context(), b.db, order(1), order(5))
	if err != nil || len(got) != 2 || !got[0].Member || got[1].Member || got[1].Detail != releasedFirst {
		t.Errorf("facts %+v, %v", got, err)
	}
}

// Nothing is taken for an order that cannot have everything.
func TestReserveAgainRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 5}, Line{"cups", 1})
	status, body := request(t, b.commands(), http.MethodPost, "/reservations/"+order(1).String()+"/reserve",
		`{"seen":"NONE","items":[{"productId":"tea","quantity":1},{"productId":"cups","quantity":2}]}`)
	if status != http.StatusConflict || body["type"] != web.TypePrefix+typeOutOfStock || body["detail"] != "out of stock: cups: 2 wanted, 1 available" {
		t.Errorf("%d %v", status, body)
	}
	if diff := cmp.Diff([]string{"cups: 1+0", "tea: 5+0"}, b.stock()); diff != "" || len(b.reservations()) != 0 {
		t.Errorf("stock (-want +got):\n%s\nreservations %v", diff, b.reservations())
	}
}

// A product that was sold out by a repair is told of, as by any order.
func TestReserveAgainTurns(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 2})
	sagatest.Drain(t, b.db)
	request(t, b.commands(), http.MethodPost, "/reservations/"+order(1).String()+"/reserve", `{"seen":"NONE","items":[{"productId":"tea","quantity":2}]}`)
	records := sagatest.Drain(t, b.db)
	if len(records) != 1 || records[0].Topic != "product.updated" || !strings.Contains(string(records[0].Value), "SOLD_OUT") {
		t.Errorf("told %v", records)
	}
}

// Wrong numbers are found, named, and counted anew from the reservations.
func TestStockRule(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10}, Line{"cups", 10}, Line{"pots", 10})
	b.deliver(created(t, 1, Line{"tea", 2}, Line{"cups", 3}), created(t, 2, Line{"tea", 1}))
	b.deliver(unpaid(t, 2))
	breaches := func() (found []string) {
		t.Helper()
		all, err := facts.Audit(t.Context(), b.db, rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range all {
			found = append(found, one.Kind+" "+one.Subject+": "+one.Detail)
		}
		return found
	}
	if found := breaches(); found != nil {
		t.Errorf("in good work: %v", found)
	}
	if _, err := b.db.Exec(t.Context(), `ALTER TABLE products DROP CONSTRAINT products_add_up`); err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{`UPDATE products SET reserved = 5, available = 5 WHERE id = 'tea'`, `UPDATE products SET available = 1 WHERE id = 'pots'`} {
		if _, err := b.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"stock-mismatch pots: stock 10, available 1, reserved 0, orders hold 0",
		"stock-mismatch tea: stock 10, available 5, reserved 5, orders hold 2",
	}
	if diff := cmp.Diff(want, breaches()); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	api := b.commands()
	for range 2 {
		for _, id := range []string{"pots", "tea"} {
			if status, body := request(t, api, http.MethodPost, "/products/"+id+"/recount", `{}`); status != http.StatusOK {
				t.Errorf("recount %s: %d %v", id, status, body)
			}
		}
	}
	if found := breaches(); found != nil {
		t.Errorf("counted anew: %v", found)
	}
	if diff := cmp.Diff([]string{"cups: 7+3", "pots: 10+0", "tea: 8+2"}, b.stock()); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	if _, err := b.db.Exec(t.Context(), `UPDATE products SET stock = 1 WHERE id = 'tea'`); err != nil {
		t.Fatal(err)
	}
	if status, body := request(t, api, http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK || body["stock"] != 10.0 {
		t.Errorf("a stock that nobody moved: %d %v", status, body)
	}
	if status, _ := request(t, api, http.MethodPost, "/products/nothing/recount", `{}`); status != http.StatusNotFound {
		t.Errorf("recount of nothing: %d", status)
	}
}

// Where the numbers are right, counting them anew writes nothing and tells nobody.
func TestRecountOfGoodBooks(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10})
	b.deliver(created(t, 1, Line{"tea", 2}))
	sagatest.Drain(t, b.db)
	was, _, err := findProduct(t.Context(), b.db, "tea")
	if err != nil {
		t.Fatal(err)
	}
	if status, body := request(t, b.commands(), http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK || body["reserved"] != 2.0 {
		t.Errorf("%d %v", status, body)
	}
	is, _, err := findProduct(t.Context(), b.db, "tea")
	if diff := cmp.Diff(was, is); diff != "" || err != nil {
		t.Errorf("product (-before +after):\n%s%v", diff, err)
	}
	if told := sagatest.Drain(t, b.db); len(told) != 0 {
		t.Errorf("told %v", told)
	}
}

// What others read over HTTP: which orders hold something, what became of the rest, and since when.
func TestFactsOverHTTP(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 100}, Line{"cups", 0})
	for n, status := range []string{"RESERVED", "RELEASED", "REFUSED", "RELEASED"} {
		b.bring(n, status)
	}
	if _, err := b.db.Exec(t.Context(), `UPDATE reservations SET created_at = created_at - interval '2 hours', released_at = released_at - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	request(t, b.commands(), http.MethodPost, "/reservations/"+order(3).String()+"/reserve", `{"seen":"RELEASED","items":[{"productId":"tea","quantity":1}]}`)
	server := web.New(web.Config{Service: "inventory"})
	facts.Server{DB: b.db, Service: Choreography(), Source: source, Rules: rules}.Register(server.API)

	_, list := request(t, server, http.MethodGet, "/facts?to="+order(9).String(), "")
	var got []string
	for _, f := range list["facts"].([]any) {
		f := f.(map[string]any)
		at, err := time.Parse(time.RFC3339Nano, f["changedAt"].(string))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%v %v, %.0f h ago", f["status"], f["member"], time.Since(at).Hours()))
	}
	b.want([]string{"RESERVED true, 2 h ago", "RELEASED false, 1 h ago", "REFUSED false, 2 h ago", "RESERVED true, 0 h ago"}, got)

	held := func(n int, items string) uint64 { return facts.ContentHash(order(n), items) }
	_, digest := request(t, server, http.MethodGet, "/facts/digest?widthMs=1000&to="+order(9).String(), "")
	want := map[string]any{"set": "reserved", "buckets": []any{map[string]any{
		"start": float64(facts.TimeOf(order(0)).UnixMilli() / 1000 * 1000), "rows": 4.0, "count": 2.0, "hash": facts.Hex(facts.HashOf(order(0)) ^ facts.HashOf(order(3))),
		"items": facts.Hex(held(0, `[["tea",2]]`) ^ held(3, `[["tea",1]]`)),
	}}}
	if diff := cmp.Diff(want, digest); diff != "" {
		t.Errorf("digest (-want +got):\n%s", diff)
	}
	if _, audit := request(t, server, http.MethodGet, "/facts/audit", ""); !cmp.Equal(audit["breaches"], any([]any{})) {
		t.Errorf("audit of good work: %v", audit)
	}
}

// Units that are counted as held by nobody are on the shelf: an order that should have them gets them, and only what is
// held is refused.
func TestReserveRecountsBeforeItRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		plant, seen string
		status      int
	}{
		"the reservation is lost":            {`DELETE FROM reservations`, "NONE", http.StatusOK},
		"it was called released by hand":     {`UPDATE reservations SET status = 'RELEASED', released_at = now()`, "RELEASED", http.StatusOK},
		"somebody else holds the last units": {`UPDATE reservations SET order_id = '01980d2e-0000-7000-8000-00000000beef'`, "NONE", http.StatusConflict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, Line{"tea", 2})
			b.deliver(created(t, 1, Line{"tea", 2}))
			if _, err := b.db.Exec(t.Context(), tc.plant); err != nil {
				t.Fatal(err)
			}
			status, body := request(t, b.commands(), http.MethodPost, "/reservations/"+order(1).String()+"/reserve",
				fmt.Sprintf(`{"seen":%q,"items":[{"productId":"tea","quantity":2}]}`, tc.seen))
			if status != tc.status {
				t.Errorf("%d %v", status, body)
			}
			if diff := cmp.Diff([]string{"tea: 0+2"}, b.stock()); diff != "" {
				t.Errorf("stock (-want +got):\n%s", diff)
			}
			b.consistent()
		})
	}
}
