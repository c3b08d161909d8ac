package workload

import "testing"

func TestOrdersAreValidAndRepeatable(t *testing.T) {
	t.Parallel()
	o, again := NewOrders(7, 1), NewOrders(7, 1)
	for range 1000 {
		d := o.Next()
		if d != again.Next() {
			t.Fatal("the same seed made different orders")
		}
		if d.Lines[0].Product == d.Lines[1].Product || d.Amount <= 0 {
			t.Fatalf("%+v: a product twice, or nothing to pay", d)
		}
	}
	const want = `{"userId":"user-3","items":[{"productId":"product-1","quantity":2},{"productId":"product-0","quantity":1}],"amount":50,"currency":"EUR"}`
	if got := string(Draft{3, 50, [2]Line{{1, 2}, {0, 1}}}.AppendTo(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
