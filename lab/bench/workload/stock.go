package workload

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// Stock is how many units of each product there are, so that no order is refused.
const Stock = 1_000_000_000

// InsertStock puts the products in stock where there is no service to ask.
func InsertStock(ctx context.Context, inventory *pgxpool.Pool) error {
	const sql = `INSERT INTO products (id, name, price, currency, stock, available, reserved)
SELECT 'product-' || n, 'Product ' || n, $3, 'EUR', $2, $2, 0 FROM generate_series(0, $1 - 1) AS n`
	if _, err := inventory.Exec(ctx, sql, Products, int64(Stock), int64(price)); err != nil {
		return fmt.Errorf("put products in stock: %w", err)
	}
	return nil
}

// PutStock puts the products in stock over inventory's API.
func PutStock(ctx context.Context, addr string) error {
	var g errgroup.Group
	g.SetLimit(8)
	for n := range Products {
		g.Go(func() error {
			body := fmt.Sprintf(`{"name":"Product %d","price":%d,"currency":"EUR","stock":%d}`, n, price, Stock)
			req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+addr+"/products/"+ProductID(n), strings.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close() //nolint:errcheck // read to its end
			answer, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusCreated {
				return fmt.Errorf("put %s in stock: %s: %s", ProductID(n), res.Status, answer)
			}
			return nil
		})
	}
	return g.Wait()
}
