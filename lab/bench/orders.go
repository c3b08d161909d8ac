package bench

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/floor"
)

const (
	products = 1000
	stock    = 1_000_000_000 // of each product, so that no order is refused
	users    = 10_000
	price    = 100 // of a unit of each product, in minor units
)

// orders makes up orders: two lines each, of different products, evenly spread.
type orders struct{ rnd *rand.Rand }

func newOrders(seed, stream uint64) orders {
	return orders{rand.New(rand.NewPCG(seed, stream))}
}

type line struct {
	product  int
	quantity int64
}

type draft struct {
	user   int
	amount int64 // minor units
	lines  [2]line
}

func (o orders) next() draft {
	first := o.rnd.IntN(products)
	second := (first + 1 + o.rnd.IntN(products-1)) % products
	d := draft{user: o.rnd.IntN(users), lines: [2]line{{first, 1 + o.rnd.Int64N(3)}, {second, 1}}}
	for _, l := range d.lines {
		d.amount += price * l.quantity
	}
	return d
}

// appendTo writes the body of a POST /orders, by hand: the driver should cost little.
func (d draft) appendTo(b []byte) []byte {
	b = append(b, `{"userId":"`...)
	b = append(b, userID(d.user)...)
	b = append(b, `","items":`...)
	b = appendLines(b, d.lines[:])
	b = append(b, `,"amount":`...)
	b = strconv.AppendInt(b, d.amount, 10)
	return append(b, `,"currency":"EUR"}`...)
}

func appendLines(b []byte, lines []line) []byte {
	for i, l := range lines {
		b = append(b, "[,"[min(i, 1)])
		b = append(b, `{"productId":"`...)
		b = append(b, productID(l.product)...)
		b = append(b, `","quantity":`...)
		b = strconv.AppendInt(b, l.quantity, 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

// forFloor is the order as the floor takes it, with its lines in the order of their products' ids.
func (d draft) forFloor() floor.Order {
	o := floor.Order{ID: uuid.Must(uuid.NewV7()), UserID: userID(d.user), Amount: d.amount}
	lines := slices.SortedFunc(slices.Values(d.lines[:]), func(a, b line) int { return cmp.Compare(productID(a.product), productID(b.product)) })
	for _, l := range lines {
		o.Products, o.Units = append(o.Products, productID(l.product)), append(o.Units, l.quantity)
	}
	o.Items = string(appendLines(nil, lines))
	return o
}

func productID(n int) string { return "product-" + strconv.Itoa(n) }
func userID(n int) string    { return "user-" + strconv.Itoa(n) }
