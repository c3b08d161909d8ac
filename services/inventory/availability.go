package inventory

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// emitAvailability tells of the products that a batch sold out or brought back in stock. There are none in nearly every
// batch, which then costs nothing here. A product that did both within the batch is as it was, and not told of.
func emitAvailability[T any](ctx context.Context, tx pgx.Tx, b *unitOfWork, cause saga.Msg[T]) ([]saga.Out, error) {
	told, err := b.raiseVersions(ctx, tx)
	if err != nil {
		return nil, err
	}
	var outs []saga.Out
	for _, id := range b.changedAvailability() { // in order, so that a replay gives each the same id
		outs = append(outs, saga.Emit(cause, event.ProductUpdated, told[id])[0].Keyed(id))
	}
	return outs, nil
}

// raiseVersions gives the products that sold out or came back their next versions, and returns their events.
func (b *unitOfWork) raiseVersions(ctx context.Context, tx pgx.Tx) (map[string]event.ProductUpdatedV1, error) {
	ids := b.changedAvailability()
	if len(ids) == 0 {
		return nil, nil
	}
	rows, _ := tx.Query(ctx, turnProductsSQL, ids) // the error surfaces in the reader
	told := make(map[string]event.ProductUpdatedV1, len(ids))
	var e event.ProductUpdatedV1
	if _, err := pgx.ForEachRow(rows, []any{&e.ProductID, &e.Name, &e.Price, &e.Currency, &e.Version}, func() error {
		e.Stock = stockOf(b.available[e.ProductID])
		told[e.ProductID] = e
		return nil
	}); err != nil {
		return nil, fmt.Errorf("turn %d products: %w", len(ids), err)
	}
	return told, nil
}
