package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// Kind says what a movement's units are.
type Kind string

// Units came, are gone, or were counted on the shelf. A count says what is there, whatever the books say and whatever
// is reserved.
const (
	Receipt Kind = "receipt"
	Loss    Kind = "loss"
	Count   Kind = "count"
)

// Movement is what changed a product's units on the shelf. It is never changed itself. From a product's last count on,
// each one's Stock is that of the movement before it plus its Delta.
type Movement struct {
	ID        uuid.UUID `json:"movementId"`
	ProductID string    `json:"productId" example:"sku-1"`
	N         int64     `json:"-"` // counts the product's movements, from 1
	Kind      Kind      `json:"kind" enum:"receipt,loss,count"`
	Units     int64     `json:"units" doc:"that came, that are gone, or that were counted" example:"10"`
	Delta     int64     `json:"delta" doc:"what the stock changed by" example:"10"`
	Stock     int64     `json:"stock" doc:"units on the shelf after it, the reserved ones among them" example:"110"`
	Note      string    `json:"note,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
}

// same tells whether both ask for the same.
func (m Movement) same(o Movement) bool {
	return m.ProductID == o.ProductID && m.Kind == o.Kind && m.Units == o.Units && m.Note == o.Note
}

// moveVerdict is what becomes of a movement that is asked for.
type moveVerdict int

const (
	moved         moveVerdict = iota // now, or when it was asked for first
	unknown                          // there is no such product
	idReused                         // the id is another movement's
	aboveLimit                       // the product would have too many units
	moreThanThere                    // fewer units are there than are to be gone
)

// follow completes the movement as the one after n others, which left so many units by their own account, and returns
// the product's stock after it. Both accounts are the same unless one of them is damaged: a receipt and a loss leave
// them as far apart as they were, so that the audit still finds it, and a count ends it.
func (m *Movement) follow(n, left, stock int64) (int64, moveVerdict) {
	m.N, m.Delta = n+1, m.Units
	switch m.Kind {
	case Loss:
		if m.Delta = -m.Units; m.Units > stock {
			return stock, moreThanThere
		}
	case Count:
		m.Delta, m.Stock = m.Units-left, m.Units
		return m.Units, moved
	case Receipt:
	}
	if m.Delta > maxUnits-stock {
		return stock, aboveLimit
	}
	m.Stock = left + m.Delta
	return stock + m.Delta, moved
}

const (
	movementColumns = `id, product_id, n, kind, units, delta, stock, note, created_at`
)

// move moves a product's units once, however often it is asked to, and tells of the product. Asked again it returns the
// movement that it made first. What it refuses it does not keep: it can be asked again when that has changed. The
// product is as it was found.
func move(ctx context.Context, db *pgxpool.Pool, asked Movement) (m Movement, p Product, v moveVerdict, err error) {
	for again := true; again; { // when the id was used for another product between the look and the insert
		again = false
		err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
			m, v = asked, unknown
			var ok bool
			if p, ok, err = one[Product](ctx, tx, lockProductSQL, asked.ProductID); err != nil || !ok {
				return err
			}
			first, ok, err := one[Movement](ctx, tx, findMovementSQL, asked.ID)
			if err != nil {
				return err
			}
			if ok {
				if m, v = first, moved; !first.same(asked) {
					v = idReused
				}
				return nil
			}
			last, _, err := one[struct{ N, Stock int64 }](ctx, tx, lastMovementSQL, asked.ProductID)
			if err != nil {
				return err
			}
			var stock int64
			if stock, v = m.follow(last.N, last.Stock, p.Stock); v != moved {
				return nil
			}
			m, ok, err = one[Movement](ctx, tx, addMovementSQL, m.ID, m.ProductID, m.N, m.Kind, m.Units, m.Delta, m.Stock, m.Note)
			if again = err == nil && !ok; err != nil || !ok {
				return err
			}
			after, _, err := one[Product](ctx, tx, moveStockSQL, p.ID, stock, m.N)
			if err != nil {
				return err
			}
			return emitUpdated(ctx, tx, after)
		})
		if err != nil {
			return Movement{}, Product{}, 0, fmt.Errorf("move %s by %s: %w", asked.ProductID, asked.ID, err)
		}
	}
	return m, p, v, nil
}

// listMovements returns up to limit movements of a product, the newest first, from the one before a number on.
func listMovements(ctx context.Context, db *pgxpool.Pool, id string, before int64, limit int) ([]Movement, error) {
	rows, _ := db.Query(ctx, listMovementsSQL, id, before, limit) // the error surfaces in the collector
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[Movement])
	if err != nil {
		return nil, fmt.Errorf("list the movements of product %s: %w", id, err)
	}
	return all, nil
}

// evidence is what the movements of a product say.
type evidence struct {
	Counted  int64 // movements, by the product's row
	N, Units int64 // the last one's number, and the stock that they make
	Whole    bool  // each follows the one before
}

// stock is the product's stock by its movements. ok is false where they are not to be believed: some are missing or
// changed, or the row knows of more than there are and has another stock. Then only who counts what is on the shelf can
// say.
func (e evidence) stock(row int64) (units int64, ok bool) {
	return e.Units, e.Whole && (e.N == e.Counted || e.Units == row)
}
