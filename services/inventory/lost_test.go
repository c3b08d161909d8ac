package inventory

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// Of a product whose row is lost, and of a reservation, the other side tells. A product is not made up from what orders
// hold of it: put again by a person, it is counted anew.
func TestLostRows(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 10}, Line{"cups", 10})
	b.deliver(created(t, 1, Line{"tea", 2}, Line{"cups", 3}))
	found := func() (all []string) {
		t.Helper()
		breaches, err := facts.Audit(t.Context(), b.db, rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range breaches {
			all = append(all, one.Kind+" "+one.Subject+": "+one.Detail)
		}
		return all
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := b.db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`DELETE FROM products WHERE id = 'tea'`)
	lost := []string{"stock-mismatch tea: no such product, orders hold 2", "stock-mismatch tea: the product is gone, its movements make 10"}
	if diff := cmp.Diff(lost, found()); diff != "" {
		t.Errorf("the product is lost (-want +got):\n%s", diff)
	}
	api := b.commands()
	status, body := request(t, api, http.MethodPost, "/products/tea/recount", `{}`)
	if status != http.StatusConflict || body["type"] != web.TypePrefix+typeProductMissing {
		t.Errorf("recount of the lost product: %d %v", status, body)
	}
	if diff := cmp.Diff([]string{"cups: 7+3"}, b.stock()); diff != "" {
		t.Errorf("stock (-want +got):\n%s", diff)
	}
	exec(`INSERT INTO products (id, name, price, currency, stock, available, reserved) VALUES ('tea', 'Tea', 1, 'EUR', 10, 10, 0)`)
	if status, body := request(t, api, http.MethodPost, "/products/tea/recount", `{}`); status != http.StatusOK {
		t.Errorf("recount of the product that was put again: %d %v", status, body)
	}
	if diff := cmp.Diff([]string{"cups: 7+3", "tea: 8+2"}, b.stock()); diff != "" || found() != nil {
		t.Errorf("found %v, stock (-want +got):\n%s", found(), diff)
	}

	exec(`DELETE FROM reservations`)
	want := []string{"stock-mismatch cups: stock 10, available 7, reserved 3, orders hold 0", "stock-mismatch tea: stock 10, available 8, reserved 2, orders hold 0"}
	if diff := cmp.Diff(want, found()); diff != "" {
		t.Errorf("the reservation is lost (-want +got):\n%s", diff)
	}
}
