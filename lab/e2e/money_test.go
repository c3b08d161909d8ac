package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
)

// What has to be undone and cannot be yet is told of, and done when it can be, without anybody asking again.
func merchantIsFrozen(t *testing.T, s *spine) {
	tea, user := s.product(t, 10), unique("user")
	o := s.place(t, cart(user, tea, 1, 2500))
	s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
	s.freeze(t, "merchant.EUR", true)
	defer s.freeze(t, "merchant.EUR", false)
	if o = s.cancel(t, o); o.Status != cancelling {
		t.Errorf("the order is %s, want %s", o.Status, cancelling)
	}
	paidBack := func(status, state string, attempts int) {
		t.Helper()
		eventually(t, "the refund is "+state, func() error {
			p, err := fetch[payment](t.Context(), s.url("payment")+"/payments/"+o.ID)
			if err == nil && (p.Status != status || p.Refund.State != state || p.Refund.Attempts < attempts || p.Refund.LastError != "account merchant.EUR is frozen") {
				err = fmt.Errorf("payment %+v", p)
			}
			return err
		})
	}
	paidBack("COMPLETED", "WAITING", 2)
	if n := s.services["payment"].metric(t, "converge_refunds_waiting"); n != 1 {
		t.Errorf("%g refunds wait, want 1", n)
	}
	// What can be undone is undone all the same, and the order tells what cannot.
	eventually(t, "the release is done and the refund is not", func() (err error) {
		o, err = fetch[order](t.Context(), s.url("order")+"/orders/"+o.ID)
		want := []compensation{{"refund", "FAILED", "account merchant.EUR is frozen"}, {"release", "DONE", ""}}
		if err == nil && (o.Status != cancelling || !slices.Equal(o.Compensations, want)) {
			err = fmt.Errorf("it is %s, %v", o.Status, o.Compensations)
		}
		return err
	})
	s.freeze(t, "merchant.EUR", false)
	paidBack("REFUNDED", "DONE", 3)
	s.settled(t, o.ID, cancelled, "order.created", "inventory.released", "order.cancel.requested", "payment.completed", "payment.refund.failed", "payment.refunded")
	a, err := fetch[account](t.Context(), s.url("payment")+"/accounts/"+user)
	if err != nil || a.Balance != opening {
		t.Errorf("account %+v, %v; want what it opened with", a, err)
	}
	for topic, want := range map[string]int{"payment.refund.failed": 1, "payment.refunded": 1} {
		eventually(t, topic+" is published", func() error {
			if got := len(s.records(t, topic)[o.ID]); got != want {
				return fmt.Errorf("%d times, want %d", got, want)
			}
			return nil
		})
	}
}

// Of a user with accounts in two currencies one is frozen alone: orders in it are refused, with the code of that, and
// the others are paid.
func furtherAccountIsFrozen(t *testing.T, s *spine) {
	tea, user := s.product(t, 10), unique("user")
	order := func(currency string) order {
		d := cart(user, tea, 1, 2500)
		d.Currency = currency
		return s.place(t, d)
	}
	paid := func(currency string) {
		t.Helper()
		s.settled(t, order(currency).ID, confirmed, "order.created", "payment.completed")
	}
	paid("EUR")
	paid("USD")
	s.freeze(t, user, true, "USD")
	paid("EUR")
	o := s.settled(t, order("USD").ID, cancelled, "order.created", "inventory.released", "payment.failed")
	i := slices.IndexFunc(o.History, func(e entry) bool { return e.Event == "payment.failed" })
	if o.Code != "account-frozen" || o.History[i].Code != "account-frozen" || o.Reason != "account "+user+" in USD is frozen" {
		t.Errorf("it is cancelled as %q (%s), after %+v", o.Code, o.Reason, o.History)
	}
	s.freeze(t, user, false, "USD")
	paid("USD")
	for currency, want := range map[string]int64{"EUR": opening - 2*2500, "USD": opening - 2*2500} {
		if a, err := fetch[account](t.Context(), s.url("payment")+"/accounts/"+user+"?currency="+currency); err != nil || a.Balance != want {
			t.Errorf("in %s: %+v, %v, want %d", currency, a, err, want)
		}
	}
}

// A user who cancels gets everything back, however far the order was.
func ordersAreCancelled(t *testing.T, s *spine) {
	const orders = 30
	tea, user := s.product(t, 10*orders), unique("user")
	late := s.place(t, cart(user, tea, 1, 2500))
	s.settled(t, late.ID, confirmed, "order.created", "payment.completed")
	all := []order{late}
	for range orders { // some are in the middle of their sagas by then
		all = append(all, s.place(t, cart(user, tea, 2, 700)))
	}
	for _, o := range all {
		s.cancel(t, o)
		s.cancel(t, o) // which changes nothing
	}
	for _, o := range all {
		eventually(t, "order "+o.ID+" is undone", func() error {
			o, err := fetch[order](t.Context(), s.url("order")+"/orders/"+o.ID)
			if err != nil || o.Status != cancelled || o.Reason != "changed my mind" {
				return fmt.Errorf("it is %s (%s), %w", o.Status, o.Reason, err)
			}
			return nil
		})
	}
	eventually(t, "stock and money are where they were", func() error {
		p, err := fetch[product](t.Context(), s.url("inventory")+"/products/"+tea)
		if err != nil || p.Reserved != 0 {
			return fmt.Errorf("product %+v, %w", p, err)
		}
		a, err := fetch[account](t.Context(), s.url("payment")+"/accounts/"+user)
		if err != nil || a.Balance != opening {
			return fmt.Errorf("account %+v, %w", a, err)
		}
		return nil
	})
	a, err := request(t.Context(), http.MethodPost, s.url("order")+"/orders/"+late.ID+"/cancel", map[string]any{"userId": "somebody-else", "reason": "spite"})
	if err != nil || a.status != http.StatusForbidden {
		t.Errorf("somebody else's cancellation: %d %s %v, want 403", a.status, a.body, err)
	}
}

// cancel cancels an order for its user, and returns it as it is then.
func (s *spine) cancel(t testing.TB, o order) order {
	t.Helper()
	a, err := request(t.Context(), http.MethodPost, s.url("order")+"/orders/"+o.ID+"/cancel", map[string]any{"userId": o.UserID, "reason": "changed my mind"})
	if err == nil && a.status != http.StatusAccepted {
		err = fmt.Errorf("%d %s", a.status, a.body)
	}
	if err == nil {
		err = json.Unmarshal(a.body, &o)
	}
	if err != nil {
		t.Fatalf("cancel order %s: %v", o.ID, err)
	}
	return o
}

// deposit puts money into a user's account, and opens it if need be.
func (s *spine) deposit(t testing.TB, user string, amount int64, currency string) {
	t.Helper()
	a, err := request(t.Context(), http.MethodPost, s.url("payment")+"/deposits", map[string]any{"depositId": oldID(), "accountId": user, "amount": amount, "currency": currency})
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("deposit: %d %s %v", a.status, a.body, err)
	}
}

// freeze freezes all accounts of an owner, or thaws them; with a currency only the further one in it.
func (s *spine) freeze(t testing.TB, account string, frozen bool, currency ...string) {
	t.Helper()
	path := "/accounts/" + account + "/frozen"
	if len(currency) > 0 {
		path += "?currency=" + currency[0]
	}
	a, err := request(t.Context(), http.MethodPut, s.url("payment")+path, map[string]any{"frozen": frozen})
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("freeze %s: %d %s %v", account, a.status, a.body, err)
	}
}
