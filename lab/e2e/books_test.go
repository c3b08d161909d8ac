package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// tally counts how a user's orders ended.
type tally struct{ confirmed, outOfStock, declined, refunded, unpaid int }

func (n tally) total() int { return n.confirmed + n.outOfStock + n.declined + n.refunded + n.unpaid }

// balance waits until all orders of a user have settled, and holds the services' books against each other: every
// accepted order is there, what is confirmed is reserved and paid, what is not is neither, the user's account has paid
// for just that, and of each product, which only this user has ordered, the units put in are all there.
func (s *spine) balance(t testing.TB, user string, accepted []string, stock map[string]int64) (n tally) {
	t.Helper()
	var orders []order
	eventually(t, "all orders of "+user+" settle", func() (err error) {
		if orders, err = s.orders(t, user); err != nil {
			return err
		}
		open := 0
		for _, o := range orders {
			if o.Status == pending || o.Status == cancelling {
				open++
			}
		}
		if open > 0 {
			return fmt.Errorf("%d of %d are PENDING or CANCELLING", open, len(orders))
		}
		return nil
	})

	known := map[string]bool{}
	for _, o := range orders {
		known[o.ID] = true
	}
	for _, id := range accepted {
		if !known[id] {
			t.Errorf("order %s was accepted and is lost", id)
		}
	}

	held, spent := map[string]int64{}, int64(0)
	var mu sync.Mutex
	var checks errgroup.Group
	checks.SetLimit(8)
	for _, o := range orders {
		checks.Go(func() error {
			deadline := time.Now().Add(patience)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				count, err := s.agree(t, o)
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					count(&n)
					if o.Status == confirmed {
						spent += o.Amount
						for _, i := range o.Items {
							held[i.ProductID] += i.Quantity
						}
					}
					return nil
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("order %s, %s: %w", o.ID, o.Status, err)
				}
				<-tick.C // what follows a cancellation can still be on its way
				if o, err = fetch[order](t.Context(), s.url("order")+"/orders/"+o.ID); err != nil {
					return err
				}
			}
		})
	}
	if err := checks.Wait(); err != nil {
		t.Error(err)
	}
	if n.confirmed+n.declined > 0 { // the first charge opened the account, whatever came of it
		a, err := fetch[account](t.Context(), s.url("payment")+"/accounts/"+user)
		if want := (account{Currency: "EUR", Balance: opening - spent}); err != nil || a != want {
			t.Errorf("account %s is %+v, %v; the confirmed orders make it %+v", user, a, err, want)
		}
	}
	for id, units := range stock {
		p, err := fetch[product](t.Context(), s.url("inventory")+"/products/"+id)
		if want := (product{Stock: units, Available: units - held[id], Reserved: held[id]}); err != nil || p != want {
			t.Errorf("product %s is %+v, %v; the confirmed orders make it %+v", id, p, err, want)
		}
	}
	return n
}

// agree checks what the three services say about a settled order, and returns how to count it.
func (s *spine) agree(t testing.TB, o order) (func(*tally), error) {
	r, err := fetch[reservation](t.Context(), s.url("inventory")+"/reservations/"+o.ID)
	if err != nil {
		return nil, err
	}
	p, err := fetch[payment](t.Context(), s.url("payment")+"/payments/"+o.ID)
	paid := !errors.Is(err, errAbsent)
	if err != nil && paid {
		return nil, err
	}
	told := strings.Join(o.events(), " ")
	switch {
	case o.Status == confirmed && told == "order.created payment.completed" && r.Status == "RESERVED" && slices.Equal(byProduct(r.Items), byProduct(o.Items)) &&
		p.Status == "COMPLETED" && p.UserID == o.UserID && p.Amount == o.Amount && p.Currency == o.Currency:
		return func(n *tally) { n.confirmed++ }, nil
	case o.Status == cancelled && told == "order.created inventory.released inventory.reservation.failed" && r.Status == "REFUSED" && !paid && o.Reason == r.Reason:
		return func(n *tally) { n.outOfStock++ }, nil
	case o.Status == cancelled && told == "order.created inventory.released payment.failed" && r.Status == "RELEASED" &&
		p.Status == "FAILED" && o.Reason == p.Reason:
		return func(n *tally) { n.declined++ }, nil
	case o.Status == cancelled && told == "order.created inventory.released order.cancel.requested payment.completed payment.refunded" &&
		r.Status == "RELEASED" && p.Status == "REFUNDED" && p.Amount == o.Amount:
		return func(n *tally) { n.refunded++ }, nil
	case o.Status == cancelled && slices.Contains(o.events(), "order.cancel.requested") && slices.Contains(o.events(), "inventory.released") &&
		slices.Contains(o.events(), "payment.failed") && r.Status != "RESERVED" && p.Status == "FAILED": // cancelled before it was paid
		return func(n *tally) { n.unpaid++ }, nil
	}
	return nil, fmt.Errorf("after %s its reservation is %+v and its payment %+v", told, r, p)
}

func byProduct(items []item) []item {
	return slices.SortedFunc(slices.Values(items), func(a, b item) int { return cmp.Compare(a.ProductID, b.ProductID) })
}

// load is a stream of orders of one user, of which some are declined and some find nothing in stock.
type load struct {
	user  string
	stock map[string]int64

	mu       sync.Mutex
	accepted []string
	stop     func() // ends the stream
}

// begin starts a stream of about 100 orders a second.
func (s *spine) begin(t testing.TB) *load {
	t.Helper()
	plenty, scarce := s.product(t, 1_000_000), s.product(t, 5)
	l := &load{user: unique("user"), stock: map[string]int64{plenty: 1_000_000, scarce: 5}}
	drafts := []draft{
		cart(l.user, plenty, 2, 2500), cart(l.user, plenty, 1, tooMuch), cart(l.user, scarce, 1, 900),
		{UserID: l.user, Items: []item{{plenty, 1}, {scarce, 1}}, Amount: 1200, Currency: "EUR"},
	}
	end := make(chan struct{})
	var workers sync.WaitGroup
	for w := range 2 {
		workers.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := w; ; i++ {
				select {
				case <-end:
					return
				case <-tick.C:
				}
				a, err := request(t.Context(), http.MethodPost, s.url("order")+"/orders", drafts[i%len(drafts)])
				switch {
				case err != nil, a.status == http.StatusServiceUnavailable: // it stops, or its database does
				case a.status == http.StatusAccepted:
					l.mu.Lock()
					l.accepted = append(l.accepted, strings.TrimPrefix(a.header.Get("Location"), "/orders/"))
					l.mu.Unlock()
				default:
					t.Errorf("an order under load: %d %s", a.status, a.body)
				}
			}
		})
	}
	l.stop = sync.OnceFunc(func() { close(end); workers.Wait() })
	t.Cleanup(l.stop)
	return l
}

// more waits until so many further orders have been accepted.
func (l *load) more(t testing.TB, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.accepted)
	}
	goal := count() + n
	eventually(t, "orders are accepted", func() error {
		if have := count(); have < goal {
			return fmt.Errorf("%d of %d", have, goal)
		}
		return nil
	})
}

// end ends the load and balances the books.
func (l *load) end(t testing.TB, s *spine) {
	t.Helper()
	l.stop()
	n := s.balance(t, l.user, l.accepted, l.stock)
	if n.confirmed == 0 || n.declined == 0 || n.outOfStock == 0 {
		t.Errorf("orders ended as %+v; want some of each", n)
	}
	t.Logf("%d orders: %+v", n.total(), n)
}
