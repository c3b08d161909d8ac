package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"
)

// What clients see of the API, written out once more: a field that is renamed or lost in a service shows here.
type (
	item struct {
		ProductID string `json:"productId"`
		Quantity  int64  `json:"quantity"`
	}
	draft struct {
		UserID   string `json:"userId"`
		Items    []item `json:"items"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
	}
	order struct {
		ID string `json:"orderId"`
		draft
		Status    string     `json:"status"`
		Reason    string     `json:"reason"`
		Code      string     `json:"reasonCode"`
		History   []entry    `json:"history"`
		CreatedAt time.Time  `json:"createdAt"`
		SettledAt *time.Time `json:"settledAt"`

		Compensations []compensation `json:"compensations"`
	}
	compensation struct {
		What  string `json:"what"`
		State string `json:"state"`
		Error string `json:"error"`
	}
	entry struct {
		At     time.Time `json:"at"`
		Status string    `json:"status"`
		Event  string    `json:"event"`
		Detail string    `json:"detail"`
		Code   string    `json:"code"`
	}
	product struct {
		Stock     int64 `json:"stock"`
		Available int64 `json:"available"`
		Reserved  int64 `json:"reserved"`
	}
	reservation struct {
		Status string `json:"status"`
		Items  []item `json:"items"`
		Reason string `json:"reason"`
	}
	account struct {
		Currency string `json:"currency"`
		Balance  int64  `json:"balance"`
	}
	payment struct {
		ID       string `json:"paymentId"`
		UserID   string `json:"userId"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
		Status   string `json:"status"`
		Reason   string `json:"reason"`
		Refund   struct {
			State     string `json:"state"`
			Attempts  int    `json:"attempts"`
			LastError string `json:"lastError"`
		} `json:"refund"`
	}
)

const (
	pending    = "PENDING"
	confirmed  = "CONFIRMED"
	cancelling = "CANCELLING"
	cancelled  = "CANCELLED"
)

// tooMuch is an amount that payment declines by default.
const tooMuch = 1_000_001

// cart is an order of one line.
func cart(user, product string, quantity, amount int64) draft {
	return draft{UserID: user, Items: []item{{product, quantity}}, Amount: amount, Currency: "EUR"}
}

// product puts a new product in stock and returns its id.
func (s *spine) product(t testing.TB, units int64) string {
	t.Helper()
	id := unique("product")
	a, err := request(t.Context(), http.MethodPut, s.url("inventory")+"/products/"+id,
		map[string]any{"name": "A thing", "price": 100, "currency": "EUR", "stock": units})
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("put a product: %d %s %v", a.status, a.body, err)
	}
	return id
}

// place places an order and checks the answer.
func (s *spine) place(t testing.TB, d draft, header ...string) order {
	t.Helper()
	a, err := request(t.Context(), http.MethodPost, s.url("order")+"/orders", d, header...)
	if err != nil || a.status != http.StatusAccepted {
		t.Fatalf("place an order: %d %s %v", a.status, a.body, err)
	}
	var o order
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatal(err)
	}
	if location := a.header.Get("Location"); location != "/orders/"+o.ID || o.Status != pending {
		t.Fatalf("placed an order: location %q, body %s; want the order, PENDING, and its path", location, a.body)
	}
	return o
}

// settled waits until an order is as it should be in the end, history included, and returns it.
func (s *spine) settled(t testing.TB, id, status string, history ...string) (o order) {
	t.Helper()
	eventually(t, "order "+id+" settles", func() (err error) {
		if o, err = fetch[order](t.Context(), s.url("order")+"/orders/"+id); err != nil {
			return err
		}
		if events := o.events(); o.Status != status || !slices.Equal(events, history) {
			return fmt.Errorf("it is %s (%s) after %v; want %s after %v", o.Status, o.Reason, events, status, history)
		}
		return nil
	})
	return o
}

// events lists the history's events. The first is first; the others come from several topics, in no certain order.
func (o order) events() []string {
	var events []string
	for _, e := range o.History {
		events = append(events, e.Event)
	}
	if len(events) > 1 {
		slices.Sort(events[1:])
	}
	return events
}

// orders lists all of a user's orders.
func (s *spine) orders(t testing.TB, user string) ([]order, error) {
	var all []order
	q := url.Values{"userId": {user}, "limit": {"100"}}
	for {
		page, err := fetch[struct {
			Orders     []order `json:"orders"`
			NextCursor string  `json:"nextCursor"`
		}](t.Context(), s.url("order")+"/orders?"+q.Encode())
		if err != nil {
			return nil, err
		}
		all = append(all, page.Orders...)
		if page.NextCursor == "" {
			return all, nil
		}
		q.Set("cursor", page.NextCursor)
	}
}
