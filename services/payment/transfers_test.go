package payment

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
)

func eur(kind Kind, from, to string, amount int64) Transfer { return in("EUR", kind, from, to, amount) }

func in(currency string, kind Kind, from, to string, amount int64) Transfer {
	return Transfer{ID: uuid.Must(uuid.NewV7()), Kind: kind, From: from, To: to, Amount: amount, Currency: currency}
}

// move makes a transfer and returns the type of its refusal.
func (b bundle) move(x Transfer) string {
	b.Helper()
	done, err := b.bank().transfer(b.Context(), b.db, x)
	if err != nil {
		b.Fatal(err)
	}
	return done.Type
}

func (b bundle) deposit(account string, amount int64) {
	b.Helper()
	if refusal := b.move(eur(Deposit, "external.EUR", account, amount)); refusal != "" {
		b.Fatalf("deposit into %s: %s", account, refusal)
	}
}

// Ten thousand transfers at once, in all directions between ten accounts: no caller gets an error, no account goes
// below zero and no money appears or vanishes, while balances are folded beside them.
func TestConcurrentTransfersConserveMoney(t *testing.T) {
	t.Parallel()
	const transfers, accounts, each = 10_000, 10, 1000
	b := setup(t)
	b.Opening = 0
	name := func(i int) string { return fmt.Sprintf("user-%d", i) }
	for i := range accounts {
		b.deposit(name(i), each)
	}
	k := b.bank()
	var made, refused atomic.Int64
	ctx, done := context.WithCancel(t.Context())
	var beside, g errgroup.Group
	beside.Go(func() error {
		f := balanceFolder{db: b.db}
		for ctx.Err() == nil {
			if err := f.fold(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
	g.SetLimit(200)
	for range transfers {
		g.Go(func() error {
			from := rand.IntN(accounts)
			to := (from + 1 + rand.IntN(accounts-1)) % accounts
			got, err := k.transfer(t.Context(), b.db, eur(Move, name(from), name(to), 1+rand.Int64N(400)))
			switch {
			case err != nil:
				return err
			case got.Type == "":
				made.Add(1)
			case got.Type == insufficientBalance:
				refused.Add(1)
			default:
				return errors.New(got.Reason)
			}
			return nil
		})
	}
	err := g.Wait()
	done()
	if err := errors.Join(err, beside.Wait()); err != nil {
		t.Fatal(err)
	}
	var sum int64
	for i := range accounts {
		sum += b.balance(name(i))
	}
	if sum != accounts*each || made.Load() == 0 || refused.Load() == 0 {
		t.Errorf("accounts hold %d, want %d; %d transfers were made and %d refused", sum, accounts*each, made.Load(), refused.Load())
	}
	b.audit()
	var entries int64
	if err := b.db.QueryRow(t.Context(), `SELECT count(*) FROM entries WHERE kind = 'transfer'`).Scan(&entries); err != nil || entries != 2*made.Load() {
		t.Errorf("%d entries of %d transfers, %v", entries, made.Load(), err)
	}
	t.Logf("%d transfers were made and %d refused", made.Load(), refused.Load())
}

// A transfer that is sent twice, at once and later, moves money once and is answered the same; another one under its id
// is refused.
func TestTransferIsMadeOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	b.deposit("ada", 1000)
	b.deposit("bob", 1)
	for _, x := range []Transfer{eur(Move, "ada", "bob", 700), eur(Move, "ada", "bob", 5000), eur(Deposit, "external.EUR", "ada", 5)} {
		answers := make([]settled, 20)
		var g errgroup.Group
		for i := range answers {
			g.Go(func() (err error) {
				answers[i], err = b.bank().transfer(t.Context(), b.db, x)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for _, a := range answers {
			want(t, answers[0], a)
		}
	}
	want(t, []int64{305, 701}, []int64{b.balance("ada"), b.balance("bob")})

	short := eur(Move, "ada", "bob", 306)
	want(t, insufficientBalance, b.move(short))
	b.deposit("ada", 1000)
	want(t, insufficientBalance, b.move(short)) // it would pass now, and was refused

	other := short
	other.Amount = 1
	if _, err := b.bank().transfer(t.Context(), b.db, other); !errors.Is(err, errIDReused) {
		t.Errorf("another transfer under the same id: %v", err)
	}
	b.audit()
}

// However many debits come at once, an account pays what it has and no more.
func TestOverdraftRace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 0
	b.deposit("ada", 1000)
	b.deposit("bob", 1)
	var paid atomic.Int64
	var g errgroup.Group
	for i := range 100 {
		g.Go(func() error {
			if i%20 == 0 {
				b.deposit("ada", 30) // not enough for one
			}
			got, err := b.bank().transfer(t.Context(), b.db, eur(Move, "ada", "bob", 300))
			if err == nil && got.Type == "" {
				paid.Add(1)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := paid.Load(); n != 3 {
		t.Errorf("%d transfers of 300 were made from 1000 and 5 times 30", n)
	}
	want(t, int64(1150-900), b.balance("ada"))
	b.audit()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Opening = 100
	b.deposit("ada", 10)
	want(t, int64(110), b.balance("ada")) // what it opens with, and the deposit
	b.deposit("ada", 10)
	want(t, int64(120), b.balance("ada"))
	b.deposit("bob", 10)

	if _, err := b.bank().transfer(t.Context(), b.db, in("USD", Move, "ada", "bob", 1)); !errors.Is(err, unknownAccount{"ada", "USD"}) {
		t.Errorf("in a currency that ada has no account in: %v", err)
	}
	want(t, currencyMismatch, b.move(in("USD", Deposit, "external.USD", "merchant.EUR", 1)))
	b.freeze("ada", true)
	want(t, accountFrozen, b.move(eur(Move, "ada", "bob", 1)))
	want(t, "", b.move(eur(Move, "bob", "ada", 110))) // it takes money all the same
	b.freeze("ada", false)
	want(t, "", b.move(eur(Move, "ada", "bob", 230)))
	want(t, []int64{0, 230}, []int64{b.balance("ada"), b.balance("bob")})

	for _, x := range []Transfer{eur(Move, "ada", "nobody", 1), eur(Move, "nobody", "ada", 1)} {
		if _, err := b.bank().transfer(t.Context(), b.db, x); !errors.Is(err, unknownAccount{"nobody", "EUR"}) {
			t.Errorf("with an account that does not exist: %v", err)
		}
	}
	b.freeze("external.EUR", true)
	if _, err := b.bank().transfer(t.Context(), b.db, eur(Deposit, "external.EUR", "eve", 1)); err != nil {
		t.Error(err)
	}
	want(t, int64(0), b.balance("eve"))
	b.audit()
}

// What is folded in is counted once, whoever reads meanwhile.
func TestFoldChangesNoBalance(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 50 {
		b.deposit(fmt.Sprintf("user-%d", i%10), 1)
	}
	before := b.balance("external.EUR")
	ctx, done := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error {
		defer done()
		for range 3 { // at once, as of several instances
			var folds errgroup.Group
			for range 3 {
				folds.Go(func() error { return (&balanceFolder{db: b.db}).fold(t.Context()) })
			}
			if err := folds.Wait(); err != nil {
				return err
			}
		}
		return nil
	})
	for ctx.Err() == nil {
		want(t, before, b.balance("external.EUR"))
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var pending int
	if err := b.db.QueryRow(t.Context(), `SELECT count(*) FROM pending`).Scan(&pending); err != nil || pending != 0 {
		t.Errorf("%d rows are pending after the fold, %v", pending, err)
	}
	b.audit()
}
