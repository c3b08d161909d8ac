package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
)

// Kind says what a movement's units are.
type Kind string

// Units came, are gone, or were counted on the shelf. A count says what is there, whatever the books say and whatever is reserved.
const (
	Receipt Kind = "receipt"
	Loss    Kind = "loss"
	Count   Kind = "count"
)

// Movement is what changed a product's units on the shelf. It is never changed itself. From a product's last count on, each one's Stock is
// that of the movement before it plus its Delta.
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

// follow completes the movement as the one after n others, which left so many units by their own account, and returns the product's stock
// after it. Both accounts are the same unless one of them is damaged: a receipt and a loss leave them as far apart as they were, so that the
// audit still finds it, and a count ends it.
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

	findMovementSQL = `SELECT ` + movementColumns + ` FROM movements WHERE id = $1`

	listMovementsSQL = `SELECT ` + movementColumns + ` FROM movements WHERE product_id = $1 AND n < $2 ORDER BY n DESC LIMIT $3`

	firstMovementSQL = `SELECT ` + movementColumns + ` FROM movements WHERE product_id = $1 ORDER BY n LIMIT 1`

	// A number that was given is not given again, though its movement is lost: its place stays empty, and is found.
	lastMovementSQL = `SELECT greatest(p.movements, m.n) AS n, coalesce(m.stock, 0) AS stock
FROM products p LEFT JOIN LATERAL (SELECT n, stock FROM movements WHERE product_id = p.id ORDER BY n DESC LIMIT 1) AS m ON true WHERE p.id = $1`

	addMovementSQL = `INSERT INTO movements (id, product_id, n, kind, units, delta, stock, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO NOTHING RETURNING ` + movementColumns

	moveStockSQL = `UPDATE products SET stock = $2, available = $2 - reserved, movements = $3, version = version + 1, updated_at = now()
WHERE id = $1 RETURNING ` + productColumns
)

// move moves a product's units once, however often it is asked to, and tells of the product. Asked again it returns the movement that it
// made first. What it refuses it does not keep: it can be asked again when that has changed. The product is as it was found.
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
			return tell(ctx, tx, after)
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

// What movements say, by product: the number of the last one, the units that are on the shelf, and whether each follows the one before. They
// are looked at from the last count on, which needs none before it.
const (
	evidenceFrom = `SELECT product_id AS id, max(n) AS n, sum(CASE WHEN n = counted THEN stock ELSE delta END)::bigint AS units,
    bool_and(coalesce(n = counted OR n = n_before + 1 AND stock = stock_before + delta, false)) AS whole
FROM (
    SELECT product_id, n, delta, stock, lag(n) OVER by_n AS n_before, lag(stock) OVER by_n AS stock_before,
        max(n) FILTER (WHERE kind = 'count') OVER (PARTITION BY product_id) AS counted
    FROM movements`

	evidenceTo = ` WINDOW by_n AS (PARTITION BY product_id ORDER BY n)
) AS m WHERE n >= coalesce(counted, 0) GROUP BY product_id`

	evidenceSQL = `SELECT p.movements AS counted, coalesce(m.n, 0) AS n, coalesce(m.units, 0) AS units, coalesce(m.whole, false) AS whole
FROM products p LEFT JOIN (` + evidenceFrom + ` WHERE product_id = $1` + evidenceTo + `) AS m ON m.id = p.id WHERE p.id = $1`
)

// movementsRule holds stocks to their movements, from both sides: a stock that nobody moved, a movement that is lost, a product that is.
var movementsRule = facts.Rule{Kind: "stock-mismatch", SQL: `SELECT ` + movementsColumns + `
FROM products p FULL JOIN (` + evidenceFrom + evidenceTo + `) AS m ON m.id = p.id
WHERE ` + movementsWrong + ` ORDER BY 1 LIMIT $1`}

const (
	movementsColumns = `coalesce(p.id, m.id), CASE
    WHEN p.id IS NULL THEN 'the product is gone, its movements make ' || m.units
    WHEN m.id IS NULL THEN 'stock ' || p.stock || ', no movements'
    ELSE 'stock ' || p.stock || ' after ' || p.movements || ' movements, movement ' || m.n || ' makes it ' || m.units
        || CASE WHEN m.whole THEN '' ELSE ', and some before it are missing or changed' END
    END`

	movementsWrong = `p.id IS NULL OR m.id IS NULL OR NOT m.whole OR p.stock <> m.units OR p.movements <> m.n`
)

// evidence is what the movements of a product say.
type evidence struct {
	Counted  int64 // movements, by the product's row
	N, Units int64 // the last one's number, and the stock that they make
	Whole    bool  // each follows the one before
}

// stock is the product's stock by its movements. ok is false where they are not to be believed: some are missing or changed, or the row knows
// of more than there are and has another stock. Then only who counts what is on the shelf can say.
func (e evidence) stock(row int64) (units int64, ok bool) {
	return e.Units, e.Whole && (e.N == e.Counted || e.Units == row)
}
