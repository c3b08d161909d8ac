package inventory

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// retell publishes up to limit products whose ids come after one, as they are: see facts.Retelling.
func retell(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error) {
	rows, _ := tx.Query(ctx, retellSQL, after, limit) // the error surfaces in the collector
	products, err := pgx.CollectRows(rows, pgx.RowToStructByName[Product])
	if err != nil || len(products) == 0 {
		return 0, "", err
	}
	outs := make([]saga.Out, len(products))
	for i, p := range products {
		outs[i] = saga.New(ctx, event.ProductUpdated, p.ID, p.updated())
	}
	return len(outs), products[len(products)-1].ID, saga.Publish(ctx, tx, "inventory", outs...)
}
