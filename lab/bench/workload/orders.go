package workload

import (
	"math/rand/v2"
	"strconv"
)

// What there is to order, and who orders.
const (
	Products = 1000
	Users    = 10_000
	price    = 100 // of a unit of each product, in minor units
)

// Orders makes up orders: two lines each, of different products, evenly spread. It is for one goroutine.
type Orders struct {
	Rand *rand.Rand // of which the orders are made
}

// NewOrders returns the orders of a seed. Its streams differ from each other.
func NewOrders(seed, stream uint64) Orders {
	return Orders{rand.New(rand.NewPCG(seed, stream))}
}

// Line is units of one product.
type Line struct {
	Product  int // its number, see [ProductID]
	Quantity int64
}

// Draft is an order that nobody has placed yet.
type Draft struct {
	User   int   // number, see [UserID]
	Amount int64 // minor units
	Lines  [2]Line
}

// Next makes up an order.
func (o Orders) Next() Draft {
	first := o.Rand.IntN(Products)
	second := (first + 1 + o.Rand.IntN(Products-1)) % Products
	d := Draft{User: o.Rand.IntN(Users), Lines: [2]Line{{first, 1 + o.Rand.Int64N(3)}, {second, 1}}}
	for _, l := range d.Lines {
		d.Amount += price * l.Quantity
	}
	return d
}

// AppendTo writes the body of a POST /orders, by hand: the driver should cost little.
func (d Draft) AppendTo(b []byte) []byte {
	b = append(b, `{"userId":"`...)
	b = append(b, UserID(d.User)...)
	b = append(b, `","items":`...)
	b = AppendLines(b, d.Lines[:])
	b = append(b, `,"amount":`...)
	b = strconv.AppendInt(b, d.Amount, 10)
	return append(b, `,"currency":"EUR"}`...)
}

// AppendLines writes an order's lines as a JSON array.
func AppendLines(b []byte, lines []Line) []byte {
	for i, l := range lines {
		b = append(b, "[,"[min(i, 1)])
		b = append(b, `{"productId":"`...)
		b = append(b, ProductID(l.Product)...)
		b = append(b, `","quantity":`...)
		b = strconv.AppendInt(b, l.Quantity, 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

// ProductID is the id of a product by its number.
func ProductID(n int) string { return "product-" + strconv.Itoa(n) }

// UserID is the id of a user by its number.
func UserID(n int) string { return "user-" + strconv.Itoa(n) }
