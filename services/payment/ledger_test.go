package payment

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// Whatever is asked for, money is neither made nor lost, no checked account goes below zero, and what is refused
// changes nothing.
func TestBooksConserveMoney(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b", "c", "merchant.EUR", "external.EUR"}
		currency := rapid.SampledFrom([]string{"EUR", "EUR", "EUR", "USD"})
		b := newUnitOfWork()
		before, known := map[string]int64{}, map[string]*account{}
		for _, name := range names {
			a := &account{Account: Account{ID: name, Currency: currency.Draw(t, "currency"), MayGoNegative: !checked(name)}, id: name}
			a.Frozen = rapid.IntRange(0, 9).Draw(t, "frozen") == 0
			if checked(name) {
				a.locked = rapid.Bool().Draw(t, "locked")
				a.Balance = rapid.Int64Range(0, 1000).Draw(t, "balance")
			}
			b.add(a)
			known[name], before[name] = a, a.Balance
		}
		for range rapid.IntRange(0, 40).Draw(t, "transfers") {
			from, to := rapid.SampledFrom(names).Draw(t, "from"), rapid.SampledFrom(names).Draw(t, "to")
			if from == to || (checked(from) && !known[from].locked) {
				continue // callers do not
			}
			had, entries := known[from].Balance, len(b.entries)
			x := Transfer{ID: uuid.New(), Kind: Move, From: from, To: to, Amount: rapid.Int64Range(1, 500).Draw(t, "amount"), Currency: "EUR"}
			refusal := b.transfer(x)
			if refusal != nil && (known[from].Balance != had || len(b.entries) != entries) {
				t.Fatalf("a refused transfer changed something: %v", refusal)
			}
			if (refusal == nil) != (known[from].Currency == "EUR" && known[to].Currency == "EUR" && !known[from].Frozen && (from == "external.EUR" || had >= x.Amount)) {
				t.Fatalf("%+v of an account with %d: %v", x, had, refusal)
			}
		}
		sums := map[string]int64{}
		var all int64
		for _, e := range b.entries {
			sums[e.account] += e.amount
			all += e.amount
		}
		if all != 0 {
			t.Fatalf("entries sum to %d", all)
		}
		for name, a := range known {
			if checked(name) && a.Balance < 0 {
				t.Fatalf("%s holds %d", name, a.Balance)
			}
			written, other := b.moved[name], b.pending[name]
			if !a.locked {
				written, other = other, written
			}
			if written != sums[name] || a.Balance != before[name]+sums[name] || other != 0 {
				t.Fatalf("%s: written %d and %d, entries sum to %d, the balance went from %d to %d", name, written, other, sums[name], before[name], a.Balance)
			}
		}
	})
}

func TestAccountsOfTheSystem(t *testing.T) {
	t.Parallel()
	k := bank{merchant: "shop"}
	for id, want := range map[string]string{
		"shop.EUR": "EUR", "external.USD": "USD", "shop": "", "shop.": "", "external.": "", "merchant.EUR": "", "shop.EURO": "", "external.food": "", "external.a.EUR": "", "ada": "", "x.shop.EUR": "", "": "",
		"suspense.EUR": "EUR", "suspense": "", "suspense.": "", "suspense.food": "",
	} {
		currency, internal := k.internal(id)
		if internal != (want != "") || (internal && currency != want) {
			t.Errorf("%q: %q, %t", id, currency, internal)
		}
		// Where money comes from, and where it waits, are among them, and nothing that a user can be called.
		if checked(id) != (id != "external.USD" && id != "suspense.EUR") {
			t.Errorf("%q: checked %t", id, checked(id))
		}
	}
}

func TestPauseGrowsToItsLimit(t *testing.T) {
	t.Parallel()
	var got []string
	for _, attempts := range []int{1, 2, 3, 6, 7, 1_000_000} {
		got = append(got, fmt.Sprintf("%s to %s", pause(attempts, time.Minute, 1), pause(attempts, time.Minute, 0)))
	}
	want(t, []string{"500ms to 1s", "1s to 2s", "2s to 4s", "16s to 32s", "30s to 1m0s", "30s to 1m0s"}, got)
}
