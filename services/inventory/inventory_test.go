package inventory

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func TestReserveIsAllOrNothing(t *testing.T) {
	t.Parallel()
	const huge = math.MaxInt64
	for _, tt := range []struct {
		name   string
		lines  []Line
		items  []Line
		reason string
	}{
		{"one line", []Line{{"tea", 2}}, []Line{{"tea", 2}}, ""},
		{"all there is", []Line{{"tea", 5}, {"cup", 1}}, []Line{{"cup", 1}, {"tea", 5}}, ""},
		{"one more", []Line{{"tea", 6}}, nil, "out of stock: tea: 6 wanted, 5 available"},
		{"one line of two", []Line{{"tea", 1}, {"cup", 2}}, nil, "out of stock: cup: 2 wanted, 1 available"},
		{"lines of one product add up", []Line{{"tea", 2}, {"tea", 3}}, []Line{{"tea", 5}}, ""},
		{"and are too many together", []Line{{"tea", 3}, {"tea", 3}}, nil, "out of stock: tea: 6 wanted, 5 available"},
		{"the first product in want is named", []Line{{"cup", 2}, {"tea", 6}}, nil, "out of stock: cup: 2 wanted, 1 available"},
		{"unknown", []Line{{"tea", 1}, {"sku-9", 1}}, nil, "unknown product: sku-9"},
		{"none left", []Line{{"gone", 1}}, nil, "out of stock: gone: 1 wanted, 0 available"},
		{"a sum that overflows", []Line{{"tea", huge}, {"tea", huge}}, nil, "out of stock: tea: 9223372036854775807 wanted, 5 available"},
		{"no id", []Line{{"a\x00b", 1}}, nil, `unknown product: "a\x00b"`},
		{"a long id", []Line{{strings.Repeat("x", 1000), 1}}, nil, `unknown product: "` + strings.Repeat("x", 64) + `"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newUnitOfWork()
			b.available = map[string]int64{"tea": 5, "cup": 1, "gone": 0}
			want := Reservation{OrderID: order(1), Status: Reserved, Items: tt.items}
			left := maps.Clone(b.available)
			for _, l := range tt.items {
				left[l.ProductID] -= l.Quantity
			}
			if tt.reason != "" {
				want = Reservation{OrderID: order(1), Status: Refused, Items: []Line{}, Reason: tt.reason}
			}
			if diff := cmp.Diff(want, b.reserve(order(1), tt.lines, nil), cmpopts.IgnoreFields(Reservation{}, "ReasonCode", "ReasonParameters")); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(left, b.available); diff != "" {
				t.Errorf("available (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever comes, in whatever order: no product goes below zero, no unit appears or vanishes, an order holds all of its
// items or none, its outcome never changes, and what it was released it does not get again.
func TestBooksBalance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		stock := map[string]int64{}
		for _, id := range []string{"a", "b", "c"} {
			stock[id] = rapid.Int64Range(0, 20).Draw(t, "stock of "+id)
		}
		b := newUnitOfWork()
		b.available = maps.Clone(stock)
		orders := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Line {
			return Line{rapid.SampledFrom([]string{"a", "b", "c", "unknown"}).Draw(t, "product"), rapid.Int64Range(1, 8).Draw(t, "quantity")}
		}), 1, 4), 1, 8).Draw(t, "orders")
		outcomes, released := map[int]string{}, map[int]bool{}

		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				n := rapid.IntRange(0, len(orders)-1).Draw(t, "order")
				r := b.reserve(order(n), orders[n], nil)
				if was, ok := outcomes[n]; ok && was != r.Reason {
					t.Fatalf("order %d: %q became %q", n, was, r.Reason)
				}
				if _, first := outcomes[n]; !first && released[n] && r.Reason != releasedFirst {
					t.Fatalf("order %d was released first, and came out as %q", n, r.Reason)
				}
				outcomes[n] = r.Reason
			},
			"release": func(t *rapid.T) {
				n := rapid.IntRange(0, len(orders)-1).Draw(t, "order")
				b.release(order(n))
				released[n] = true
			},
			"": func(t *rapid.T) {
				held := map[string]int64{}
				for n, lines := range orders {
					r, ok := b.reservations[order(n)]
					if !ok || r.Status != Reserved {
						continue
					}
					if released[n] {
						t.Fatalf("order %d was released and holds %v", n, r.Items)
					}
					for _, l := range lines {
						held[l.ProductID] += l.Quantity
					}
				}
				for id, put := range stock {
					if b.available[id] < 0 || b.available[id]+held[id] != put || b.moved[id] != held[id] {
						t.Fatalf("%s: %d available, %d moved, %d held of %d", id, b.available[id], b.moved[id], held[id], put)
					}
				}
			},
		})
	})
}
