package inventory

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/sagatest"
)

// put sets a product and its price.
func (b bundle) put(id string, price int64, currency string, stock int64) {
	b.Helper()
	if _, _, err := putProduct(b.Context(), b.db, id, Draft{Name: id, Price: price, Currency: currency, Stock: stock}); err != nil {
		b.Fatal(err)
	}
}

// asked is a new message, each time, that tells of the n-th order, for which an amount was asked.
func asked(t *testing.T, n int, amount int64, currency string, lines ...Line) broker.Record {
	t.Helper()
	e := event.OrderCreatedV1{OrderID: order(n), UserID: "u-1", Amount: amount, Currency: currency}
	for _, l := range lines {
		e.Items = append(e.Items, event.Item(l))
	}
	return sagatest.Record(t, saga.New(t.Context(), event.OrderCreated, order(n).String(), e))
}

// An order is reserved for exactly what its lines cost, whatever a client says that they do. What is unknown or short
// is named first, and a cost beyond 64 bits is no other cost.
func TestAmountIsWhatItCosts(t *testing.T) {
	t.Parallel()
	const most = 1_000_000_000_000
	for name, tc := range map[string]struct {
		amount   int64
		currency string
		lines    []Line
		want     event.InventoryReservationFailedV1 // without an error: reserved
	}{
		"the price":               {350, "EUR", []Line{{"tea", 2}, {"cup", 1}}, event.InventoryReservationFailedV1{}},
		"a product in two lines":  {300, "EUR", []Line{{"tea", 2}, {"tea", 1}}, event.InventoryReservationFailedV1{}},
		"a free product":          {0, "EUR", []Line{{"leaflet", 3}}, event.InventoryReservationFailedV1{}},
		"a free product beside":   {100, "EUR", []Line{{"leaflet", 3}, {"tea", 1}}, event.InventoryReservationFailedV1{}},
		"less":                    {1, "EUR", []Line{{"tea", 2}}, mismatch("price mismatch: 1 EUR asked, it is 200", "1", "EUR", "200", "EUR", "")},
		"more":                    {201, "EUR", []Line{{"tea", 2}}, mismatch("price mismatch: 201 EUR asked, it is 200", "201", "EUR", "200", "EUR", "")},
		"nothing":                 {0, "EUR", []Line{{"tea", 2}}, mismatch("price mismatch: 0 EUR asked, it is 200", "0", "EUR", "200", "EUR", "")},
		"money for nothing":       {1, "EUR", []Line{{"leaflet", 1}}, mismatch("price mismatch: 1 EUR asked, it is 0", "1", "EUR", "0", "EUR", "")},
		"another currency":        {200, "USD", []Line{{"tea", 2}}, mismatch("price mismatch: 200 USD asked, the price of tea is in EUR", "200", "USD", "", "EUR", "tea")},
		"two currencies":          {150, "EUR", []Line{{"tea", 1}, {"sake", 1}}, mismatch("price mismatch: 150 EUR asked, the price of sake is in JPY", "150", "EUR", "", "JPY", "sake")},
		"nothing, in a currency":  {0, "USD", []Line{{"leaflet", 1}}, mismatch("price mismatch: 0 USD asked, the price of leaflet is in EUR", "0", "USD", "", "EUR", "leaflet")},
		"a product beyond 64 bit": {most, "EUR", []Line{{"gold", most}}, mismatch("price mismatch: 1000000000000 EUR asked, it is 1000000000000000000000000", "1000000000000", "EUR", "1000000000000000000000000", "EUR", "")},
		"a cost that wraps to it": {0, "EUR", []Line{{"half", 1 << 31}}, mismatch("price mismatch: 0 EUR asked, it is 18446744073709551616", "0", "EUR", "18446744073709551616", "EUR", "")},
		"unknown before the price": {1, "EUR", []Line{{"tea", 2}, {"sku-9", 1}},
			event.InventoryReservationFailedV1{OrderID: order(1), Error: "unknown product: sku-9", Code: event.CodeUnknownProduct, Parameters: event.Parameters{"productId": "sku-9"}}},
		"out of stock before the price": {1, "EUR", []Line{{"tea", 6}}, event.InventoryReservationFailedV1{
			OrderID: order(1), Error: "out of stock: tea: 6 wanted, 5 available", Code: event.CodeOutOfStock,
			Parameters: event.Parameters{"productId": "tea", "wanted": "6", "available": "5"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put("tea", 100, "EUR", 5)
			b.put("cup", 150, "EUR", 5)
			b.put("sake", 50, "JPY", 5)
			b.put("leaflet", 0, "EUR", 5)
			b.put("gold", most, "EUR", most)
			b.put("half", 1<<33, "EUR", 1<<31)
			said := b.ofOrders(sagatest.Deliver(t, b.db, Choreography(), asked(t, 1, tc.amount, tc.currency, tc.lines...)))
			if len(said) != 1 {
				t.Fatalf("it says %d events", len(said))
			}
			if tc.want.Error == "" {
				want := event.InventoryReservedV1{OrderID: order(1), UserID: "u-1", Amount: tc.amount, Currency: tc.currency}
				if diff := cmp.Diff(want, sagatest.Decode(t, event.InventoryReserved, said[0])); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				b.consistent()
				return
			}
			if diff := cmp.Diff(tc.want, sagatest.Decode(t, event.InventoryReservationFailed, said[0])); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			stored := []Reservation{{
				OrderID: order(1), Status: Refused, Items: []Line{}, Reason: tc.want.Error, ReasonCode: tc.want.Code, ReasonParameters: tc.want.Parameters,
			}}
			if diff := cmp.Diff(stored, b.reservations()); diff != "" {
				t.Errorf("reservations (-want +got):\n%s", diff)
			}
			b.consistent()
		})
	}
}

func mismatch(text, askedAmount, askedCurrency, amount, currency, product string) event.InventoryReservationFailedV1 {
	e := event.InventoryReservationFailedV1{OrderID: order(1), Error: text, Code: event.CodePriceMismatch, Parameters: event.Parameters{
		"askedAmount": askedAmount, "askedCurrency": askedCurrency, "currency": currency,
	}}
	if product != "" {
		e.Parameters["productId"] = product
	} else {
		e.Parameters["amount"] = amount
	}
	return e
}

// Of a poll, only the orders with a wrong amount are refused. A price that changes later changes no outcome, and a
// repair restores what was agreed on.
func TestPriceOfTheMomentCounts(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 9})
	right, wrong := asked(t, 1, 200, "EUR", Line{"tea", 2}), asked(t, 2, 199, "EUR", Line{"tea", 2})
	b.want([]string{"order 1" + said(2), "order 2: price mismatch: 199 EUR asked, it is 200"}, b.deliver(right, wrong))
	b.want([]string{"tea: 7+2"}, b.stock())

	b.put("tea", 150, "EUR", 9)
	b.want([]string{"order 1" + said(2), "order 2: price mismatch: 199 EUR asked, it is 200", "order 3: price mismatch: 200 EUR asked, it is 300"},
		b.deliver(asked(t, 1, 200, "EUR", Line{"tea", 2}), asked(t, 2, 300, "EUR", Line{"tea", 2}), asked(t, 3, 200, "EUR", Line{"tea", 2})))

	b.deliver(unpaid(t, 1))
	status, body := request(t, b.commands(), http.MethodPost, "/reservations/"+order(1).String()+"/reserve", `{"seen":"RELEASED","items":[{"productId":"tea","quantity":2}]}`)
	if status != http.StatusOK {
		t.Errorf("reserved again: %d %v", status, body)
	}
	b.want([]string{"tea: 7+2"}, b.stock())
	b.consistent()
}

// With PRICE_CHECK=off an order's amount is its client's.
func TestPriceCheckOff(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"tea", 9})
	sagatest.Drain(t, b.db)
	said := sagatest.Deliver(t, b.db, Config{AnyPrice: true}.choreography(), asked(t, 1, 7, "USD", Line{"tea", 2}), asked(t, 2, 1, "EUR", Line{"tea", 99}))
	b.want([]string{"order 1: reserved for u-1, 7 USD", "order 2: out of stock: tea: 99 wanted, 7 available"}, []string{told(t, said[0]), told(t, said[1])})
}
