package checker_test

import (
	"fmt"
	"time"

	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/facts"
)

// The rules that are declared by names, and what each says of one order and its shipment.
func ExampleRule() {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	held := func(status string, amount int64, user, items string) *facts.Fact {
		return &facts.Fact{Status: status, Member: true, Amount: amount, Currency: "EUR", UserID: &user, Items: items, ChangedAt: now.Add(-2 * time.Hour)}
	}
	h := checker.Held{
		{Service: "order", Name: "order", Fact: held("CONFIRMED", 4200, "ada", `[["p-1",2]]`)},
		{Service: "shipping", Name: "shipment", Fact: held("PACKED", 4100, "bob", `[["p-1",3]]`)},
		{Service: "billing", Name: "bill"},
	}
	for _, rule := range []checker.Rule{
		checker.Subset("billed-not-confirmed", "billing", "order"), // which holds: there is no bill
		checker.Equal("not-billed", "order", "billing"),
		checker.SameAmount("wrong-amount", "shipping", "order"),
		checker.SameUser("wrong-user", "shipping", "order"),
		checker.SameItems("wrong-items", "shipping", "order"),
		checker.Settles("stuck-packed", "shipping", time.Hour, "PACKED"),
	} {
		flaws, _ := rule.Judge(h, checker.Terms{Watermark: now.Add(-time.Minute), Now: now})
		for _, f := range flaws {
			fmt.Printf("%s: %s\n", f.Kind, f.Detail)
		}
	}
	// Output:
	// not-billed: it is in the set of order, and not in that of billing: order CONFIRMED (4200 EUR), shipment PACKED (4100 EUR), no bill
	// wrong-amount: shipping holds 4100 EUR, and order 4200 EUR: order CONFIRMED (4200 EUR), shipment PACKED (4100 EUR), no bill
	// wrong-user: shipping holds it of "bob", and order of "ada": order CONFIRMED (4200 EUR), shipment PACKED (4100 EUR), no bill
	// wrong-items: shipping holds [["p-1",3]], and order [["p-1",2]]: order CONFIRMED (4200 EUR), shipment PACKED (4100 EUR), no bill
	// stuck-packed: shipping holds it PACKED for 2h0m0s: order CONFIRMED (4200 EUR), shipment PACKED (4100 EUR), no bill
}
