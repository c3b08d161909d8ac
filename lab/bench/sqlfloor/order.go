package sqlfloor

import (
	"cmp"
	"slices"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/workload"
)

// Order is one order with everything the steps need, encoded beforehand.
type Order struct {
	ID       uuid.UUID
	UserID   string
	Amount   int64  // minor units
	Items    string // JSON, by product
	Products []string
	Units    []int64
}

// Encode gives a draft an id and brings its lines into the order of their products' ids, as services do before they
// lock them.
func Encode(d workload.Draft) Order {
	o := Order{ID: uuid.Must(uuid.NewV7()), UserID: workload.UserID(d.User), Amount: d.Amount}
	lines := slices.SortedFunc(slices.Values(d.Lines[:]), func(a, b workload.Line) int {
		return cmp.Compare(workload.ProductID(a.Product), workload.ProductID(b.Product))
	})
	for _, l := range lines {
		o.Products, o.Units = append(o.Products, workload.ProductID(l.Product)), append(o.Units, l.Quantity)
	}
	o.Items = string(workload.AppendLines(nil, lines))
	return o
}
