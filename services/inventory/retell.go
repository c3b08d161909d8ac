package inventory

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
)

// retell publishes up to limit products whose ids come after one, as they are: see facts.Retelling.
func retell(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error) {
	rows, _ := tx.Query(ctx, retellSQL, after, limit) // the error surfaces in the collector
	products, err := pgx.CollectRows(rows, pgx.RowToStructByName[Product])
	if err != nil || len(products) == 0 {
		return 0, "", err
	}
	return len(products), products[len(products)-1].ID, tellAll(ctx, tx, products)
}

// retellOnly publishes those of the products with these ids that are here, as they are.
func retellOnly(ctx context.Context, tx pgx.Tx, ids []string) (n int, err error) {
	rows, _ := tx.Query(ctx, retellOnlySQL, ids) // the error surfaces in the collector
	products, err := pgx.CollectRows(rows, pgx.RowToStructByName[Product])
	if err != nil || len(products) == 0 {
		return 0, err
	}
	return len(products), tellAll(ctx, tx, products)
}

// tellAll publishes products as they are.
func tellAll(ctx context.Context, tx pgx.Tx, products []Product) error {
	outs := make([]saga.Out, len(products))
	for i, p := range products {
		e := p.updated()
		if err := e.Validate(); err != nil {
			return facts.Untellable(p.ID, err)
		}
		outs[i] = saga.New(ctx, event.ProductUpdated, p.ID, e)
	}
	return saga.Publish(ctx, tx, "inventory", outs...)
}
