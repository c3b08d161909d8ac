package e2e_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/converge-dev/converge/pkg/broker"
)

// What has to be undone and cannot be yet is told of, and done when it can be, without anybody asking again.
func merchantIsFrozen(t *testing.T, s *spine) {
	tea, user := s.product(t, 10), unique("user")
	o := s.place(t, cart(user, tea, 1, 2500))
	s.settled(t, o.ID, confirmed, "order.created", "payment.completed")
	s.freeze(t, "merchant.EUR", true)
	defer s.freeze(t, "merchant.EUR", false)
	for _, err := range s.client(t).Produce(t.Context(), []broker.Record{{
		Topic: "order.cancel.requested", Key: []byte(o.ID), Value: fmt.Appendf(nil, `{"orderId":%q,"reason":"changed my mind"}`, o.ID),
	}}) {
		if err != nil {
			t.Fatal(err)
		}
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
	s.freeze(t, "merchant.EUR", false)
	paidBack("REFUNDED", "DONE", 3)
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

func (s *spine) freeze(t testing.TB, account string, frozen bool) {
	t.Helper()
	a, err := request(t.Context(), http.MethodPut, s.url("payment")+"/accounts/"+account+"/frozen", map[string]any{"frozen": frozen})
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("freeze %s: %d %s %v", account, a.status, a.body, err)
	}
}
