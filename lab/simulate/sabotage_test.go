package simulate_test

import (
	"slices"
	"testing"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// never is SQL after which rows of a table that meet a condition are not written, and nobody notices.
func never(table, condition string) string {
	return `
CREATE FUNCTION never_` + table + `() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER never_` + table + ` BEFORE INSERT ON ` + table + ` FOR EACH ROW WHEN (` + condition + `) EXECUTE FUNCTION never_` + table + `();`
}

// deaf has a service react to less: some of its routes are gone.
func deaf(service string, services func(testing.TB) []sagatest.Simulated, routes ...int) func(testing.TB) []sagatest.Simulated {
	return func(t testing.TB) []sagatest.Simulated {
		all := services(t)
		i := slices.IndexFunc(all, func(s sagatest.Simulated) bool { return s.Name == service })
		left := []saga.Route{}
		for n, route := range all[i].Routes {
			if !slices.Contains(routes, n) {
				left = append(left, route)
			}
		}
		all[i].Routes = left
		return all
	}
}

// The invariant notices each guard that is missing, and a few lines show why it is there.
func TestOrdersDivergeWithoutAGuard(t *testing.T) {
	t.Parallel()
	unmarked := saboteur{"payment": never("payments", "NEW.reason_code = 'order-cancelled'")}
	for name, services := range map[string]func(testing.TB) []sagatest.Simulated{
		"a refund that comes before its charge leaves no mark":                       unmarked.services,
		"payment does not hear of cancelled orders":                                  deaf("payment", saboteur{}.services, 1),
		"inventory hears neither of failed payments nor of what order makes of them": deaf("inventory", saboteur{}.services, 1, 4),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := sagatest.Diverges(t, services, requests, agree)
			t.Log(f)
			if len(f.Events) > 6 || len(f.Inputs) > 3 {
				t.Errorf("%d events and %d inputs, want at most 6 and 3", len(f.Events), len(f.Inputs))
			}
		})
	}
}

// Some guards are doubled. Without an inbox each handler survives by its own state what it has seen before. Without the
// mark of a release that came before its reserve, payment's stored refusal has inventory release what it reserved too
// late.
func TestOrdersConvergeByTheirSecondGuards(t *testing.T) {
	t.Parallel()
	forget := never("inbox", "true")
	sagatest.Converges(t, saboteur{
		"order": forget, "inventory": forget + never("reservations", "NEW.status = 'RELEASED'"), "payment": forget,
	}.services, requests, agree)
}
