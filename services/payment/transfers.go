package payment

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// settled is a transfer that was asked for over HTTP, and what came of it.
type settled struct {
	Transfer
	Refusal
	CreatedAt time.Time
}

// errIDReused says that the transfer's id belongs to another one.
var errIDReused = errors.New("the id belongs to another transfer")

// unknownAccount says that there is no such account. It is not stored: the account can be opened, and the transfer sent
// again.
type unknownAccount struct{ owner, currency string }

func (e unknownAccount) Error() string {
	if e.currency == "" {
		return "there is no account " + e.owner
	}
	return fmt.Sprintf("there is no account %s in %s", e.owner, e.currency)
}

// transfer moves money once, however often it is asked to: balance check and both entries are one transaction. Asked
// again it returns the first outcome, be it a refusal. Of the two accounts only the debited one is locked, and only if
// its balance has to be checked. A deposit opens the account that it is for.
func (k bank) transfer(ctx context.Context, db *pgxpool.Pool, t Transfer) (settled, error) {
	var out settled
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		w := newWanted()
		from, to := accountKey{t.From, t.Currency}, accountKey{t.To, t.Currency}
		w.debit[from], w.other[to] = true, true
		if t.Kind == Deposit {
			w.open[to] = true
		}
		added := false
		var first, last pgx.Batch
		first.Queue(addTransferSQL, t.ID, t.Kind, t.From, t.To, t.Amount, t.Currency).Query(func(rows pgx.Rows) (err error) {
			_, err = pgx.ForEachRow(rows, []any{&out.CreatedAt}, func() error { added = true; return nil })
			return err
		})
		load := k.queueLoad(&first, w)
		first.Queue(readTransferSQL, t.ID).QueryRow(func(row pgx.Row) error {
			return row.Scan(&out.ID, &out.Kind, &out.From, &out.To, &out.Amount, &out.Currency, &out.Type, &out.Reason, &out.CreatedAt)
		})
		if err := tx.SendBatch(ctx, &first).Close(); err != nil {
			return err
		}
		if !added && out.Transfer != t {
			return errIDReused
		}
		b := load.begin(w)
		if added {
			for _, owner := range []string{t.From, t.To} {
				if b.find(owner, t.Currency) == nil {
					return unknownAccount{owner, t.Currency}
				}
			}
			if refusal := b.transfer(t); refusal != nil {
				out.Refusal = *refusal
				last.Queue(refuseTransferSQL, t.ID, refusal.Type, refusal.Reason)
			}
		}
		b.queueSave(&last) // what was pending, at least
		return pg.Defer(ctx, tx, &last)
	})
	if err != nil {
		return settled{}, fmt.Errorf("%s %s: %w", t.Kind, t.ID, err)
	}
	return out, nil
}
