package e2e_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// garden opens the databases, with a product and a user that no order has.
func (s *spine) garden(t *testing.T) *garden {
	t.Helper()
	open := func(service string) *pgxpool.Pool {
		db, err := pgxpool.New(t.Context(), s.dbs[service].URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		return db
	}
	g := &garden{T: t, order: open("order"), inventory: open("inventory"), payment: open("payment"), product: s.product(t, 1000), user: unique("gardener")}
	g.shelves = [2]string{s.product(t, 100), s.product(t, 100)}
	for _, currency := range []string{"EUR", "USD", "CHF"} {
		s.deposit(t, g.user, 1_000_000, currency)
	}
	return g
}

// bed is orders of one status, each for one use.
type bed struct{ orders []order }

func (b *bed) next() (o order) {
	if b != nil {
		o, b.orders = b.orders[0], b.orders[1:]
	}
	return o
}

// beds places as many orders as the sets need, each of a user of its own, and brings them where they are to be.
func (s *spine) beds(t *testing.T, sets [][]planted) map[string]*bed {
	t.Helper()
	beds := map[string]*bed{confirmed: {}, cancelled: {}}
	tea := s.product(t, 100_000)
	var placing errgroup.Group
	placing.SetLimit(16)
	for _, set := range sets {
		for _, p := range set {
			if p.base != "" {
				beds[p.base].orders = append(beds[p.base].orders, order{})
			}
		}
	}
	for status, b := range beds {
		for i := range b.orders {
			placing.Go(func() error {
				o := s.place(t, cart(unique("user"), tea, 2, 700))
				o = s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
				if status == cancelled {
					s.cancel(t, o)
					o = s.settled(t, o.ID, cancelled, "order.created", "inventory.released", "order.cancel.requested", "payment.completed", "payment.refunded")
				}
				b.orders[i] = o
				return nil
			})
		}
	}
	if err := placing.Wait(); err != nil {
		t.Fatal(err)
	}
	return beds
}

// repaired has repaired what is found until nothing is.
func (s *spine) repaired(t *testing.T) {
	t.Helper()
	eventually(t, "everything is repaired", func() error {
		c, err := s.check(t.Context(), true)
		if err == nil && len(c.Findings) > 0 {
			err = fmt.Errorf("found: %+v", c.Findings)
		}
		return err
	})
}

// repairsOnRecord looks for what was repaired, why, by whom, and what was held before and after.
func (s *spine) repairsOnRecord(t *testing.T) {
	type held struct {
		Payment *struct {
			Status string `json:"status"`
		} `json:"payment"`
	}
	type page struct {
		Repairs []struct {
			By     string `json:"by"`
			Kind   string `json:"kind"`
			State  string `json:"state"`
			Before held   `json:"before"`
			After  *held  `json:"after"`
		} `json:"repairs"`
		NextCursor string `json:"nextCursor"`
	}
	kinds := map[string]bool{}
	for from := ""; ; {
		p, err := fetch[page](t.Context(), s.url("checker")+"/repairs?limit=100"+from)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.Repairs {
			if r.State != "DONE" || r.By != "the test" || r.After == nil {
				t.Errorf("on record: %+v", r)
			}
			if r.Kind == "paid-for-cancelled" && (r.Before.Payment.Status != "COMPLETED" || r.After.Payment.Status != "REFUNDED") {
				t.Errorf("%s was %s and is %s", r.Kind, r.Before.Payment.Status, r.After.Payment.Status)
			}
			kinds[r.Kind] = true
		}
		if p.NextCursor == "" {
			break
		}
		from = "&cursor=" + p.NextCursor
	}
	for _, p := range plants() {
		for _, kind := range p.kinds {
			if p.repair == "DONE" && len(p.kinds) == 1 && !kinds[kind] {
				t.Errorf("no repair of %s is on record", kind)
			}
		}
	}
}
