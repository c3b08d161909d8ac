package inventory

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/facts"
)

const (
	// newMovementsSQL selects the products whose stock is not what their last movement made it, or whose movements
	// since the one that is kept do not follow each other; and keeps the last ones of the others. It looks for one
	// movement of each product, the last, whatever number there are.
	newMovementsSQL = `WITH RECURSIVE latest AS (
    (SELECT product_id, n, stock FROM movements ORDER BY product_id DESC, n DESC LIMIT 1)
    UNION ALL
    SELECT m.* FROM latest l CROSS JOIN LATERAL (
        SELECT product_id, n, stock FROM movements WHERE product_id < l.product_id ORDER BY product_id DESC, n DESC LIMIT 1
    ) AS m
), said AS MATERIALIZED (
    SELECT l.product_id AS id, l.n, l.stock, CASE WHEN k.n = l.n AND k.stock = l.stock THEN true ELSE (
        SELECT bool_and(coalesce(n = counted OR n = n_before + 1 AND stock = stock_before + delta, false)) FROM (
            SELECT n, delta, stock, lag(n) OVER by_n AS n_before, lag(stock) OVER by_n AS stock_before,
                max(n) FILTER (WHERE kind = 'count' OR n = k.n AND stock = k.stock) OVER () AS counted
            FROM movements WHERE product_id = l.product_id AND n >= coalesce(k.n, 0) WINDOW by_n AS (ORDER BY n)
        ) AS m WHERE n >= coalesce(counted, 0)
    ) END AS whole
    FROM latest l LEFT JOIN audit_movements k ON k.product_id = l.product_id
), kept AS (
    INSERT INTO audit_movements AS k (product_id, n, stock) SELECT id, n, stock FROM said WHERE whole ORDER BY id
    ON CONFLICT (product_id) DO UPDATE SET n = excluded.n, stock = excluded.stock WHERE k.n < excluded.n
)
SELECT coalesce(p.id, s.id) FROM products p FULL JOIN said s ON s.id = p.id
WHERE p.id IS NULL OR s.whole IS NOT TRUE OR p.stock <> s.stock OR p.movements <> s.n ORDER BY 1 LIMIT $1`

	// movementsOfSQL is movementsRule of some products.
	movementsOfSQL = `SELECT 'stock-mismatch', ` + movementsColumns + `
FROM (SELECT * FROM products WHERE id = ANY($2)) AS p FULL JOIN (` + evidenceFrom + ` WHERE product_id = ANY($2)` + evidenceTo + `) AS m ON m.id = p.id
WHERE ` + movementsWrong + ` ORDER BY 2 LIMIT $1`

	dropKeptSQL = `DELETE FROM audit_movements WHERE product_id = ANY($1)`

	// dueProductsSQL selects as many products as the time since they were walked up to is of a turn: after the last
	// product comes the first one again.
	dueProductsSQL = `SELECT id FROM products
WHERE id > (SELECT CASE WHEN EXISTS (SELECT FROM products WHERE id > product) THEN product ELSE '' END FROM audit_horizon) ORDER BY id
LIMIT (SELECT floor((SELECT count(*) FROM products) * extract(epoch FROM now() - walked_at) / extract(epoch FROM $1::interval))::bigint FROM audit_horizon)`

	// keepWalkSQL takes for walked what so many products are of a turn, so that what is left of the time is not lost;
	// more than that is.
	keepWalkSQL = `UPDATE audit_horizon SET product = $1, walked_at = greatest(walked_at + $2::bigint * share, now() - share)
FROM (SELECT $3::interval / greatest(1, count(*)) AS share FROM products) AS p`
)

// newMovements holds products to the movements that have come. Those that do not fit are held to all of their
// movements, until they do.
func (a *auditor) newMovements(ctx context.Context) ([]facts.Breach, error) {
	rows, _ := a.db.Query(ctx, newMovementsSQL, facts.MostBreaches) // the error surfaces in the collector
	wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("hold products to their new movements: %w", err)
	}
	if err := a.forget(ctx, wrong); err != nil {
		return nil, err
	}
	return a.movementsOf(ctx, wrong)
}

// walkProducts holds the products whose turn it is to all of their movements. Those that do not fit are held to them
// until they do.
func (a *auditor) walkProducts(ctx context.Context) ([]facts.Breach, error) {
	rows, _ := a.db.Query(ctx, dueProductsSQL, a.reread) // the error surfaces in the collector
	due, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look for products whose turn it is: %w", err)
	}
	if len(due) == 0 {
		return nil, nil
	}
	found, err := a.movementsOf(ctx, due)
	if err != nil {
		return nil, err
	}
	wrong := make([]string, len(found))
	for i, one := range found {
		wrong[i] = one.Subject
	}
	if err := a.forget(ctx, wrong); err != nil {
		return nil, err
	}
	if _, err := a.db.Exec(ctx, keepWalkSQL, due[len(due)-1], len(due), a.reread); err != nil {
		return nil, fmt.Errorf("store how far products were held to their movements: %w", err)
	}
	return found, nil
}

// movementsOf holds some products to all of their movements.
func (a *auditor) movementsOf(ctx context.Context, products []string) ([]facts.Breach, error) {
	if len(products) == 0 {
		return nil, nil
	}
	found, err := facts.BreachesOf(ctx, a.db, movementsOfSQL, facts.MostBreaches, products)
	if err != nil {
		return nil, fmt.Errorf("hold %d products to their movements: %w", len(products), err)
	}
	return found, nil
}

// forget has some products held to all of their movements by the next audit.
func (a *auditor) forget(ctx context.Context, products []string) error {
	if len(products) == 0 {
		return nil
	}
	if _, err := a.db.Exec(ctx, dropKeptSQL, products); err != nil {
		return fmt.Errorf("forget up to which movement %d products were held to them: %w", len(products), err)
	}
	return nil
}
