package profile

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/saga"
)

// retell publishes up to limit profiles of users whose ids come after one, as they are: see facts.Retelling.
func retell(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error) {
	rows, _ := tx.Query(ctx, retellSQL, after, limit) // the error surfaces in the collector
	profiles, err := pgx.CollectRows(rows, pgx.RowToStructByName[Profile])
	if err != nil || len(profiles) == 0 {
		return 0, "", err
	}
	outs := make([]saga.Out, len(profiles))
	for i, p := range profiles {
		outs[i] = saga.New(ctx, event.UserProfileUpdated, p.UserID, p.updated())
	}
	return len(outs), profiles[len(profiles)-1].UserID, saga.Publish(ctx, tx, "profile", outs...)
}
