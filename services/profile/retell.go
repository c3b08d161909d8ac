package profile

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
)

// retell publishes up to limit profiles of users whose ids come after one, as they are: see facts.Retelling.
func retell(ctx context.Context, tx pgx.Tx, after string, limit int) (n int, last string, err error) {
	rows, _ := tx.Query(ctx, retellSQL, after, limit) // the error surfaces in the collector
	profiles, err := pgx.CollectRows(rows, pgx.RowToStructByName[Profile])
	if err != nil || len(profiles) == 0 {
		return 0, "", err
	}
	return len(profiles), profiles[len(profiles)-1].UserID, tellAll(ctx, tx, profiles)
}

// retellOnly publishes those of the profiles with these ids that are here, as they are.
func retellOnly(ctx context.Context, tx pgx.Tx, ids []string) (n int, err error) {
	rows, _ := tx.Query(ctx, retellOnlySQL, ids) // the error surfaces in the collector
	profiles, err := pgx.CollectRows(rows, pgx.RowToStructByName[Profile])
	if err != nil || len(profiles) == 0 {
		return 0, err
	}
	return len(profiles), tellAll(ctx, tx, profiles)
}

// tellAll publishes profiles as they are.
func tellAll(ctx context.Context, tx pgx.Tx, profiles []Profile) error {
	outs := make([]saga.Out, len(profiles))
	for i, p := range profiles {
		e := p.updated()
		if err := e.Validate(); err != nil {
			return facts.Untellable(p.UserID, err)
		}
		outs[i] = saga.New(ctx, event.UserProfileUpdated, p.UserID, e)
	}
	return saga.Publish(ctx, tx, "profile", outs...)
}
