package profile

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/facts"
)

const raiseVersionsSQL = `UPDATE profiles SET version = version + $1`

// raiseVersions has all versions grow beyond those that were published after the copy was made that this database was restored from. A profile's next
// change is then newer to who listens than what it had heard, and not one of the versions that exist twice.
func raiseVersions(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, raiseVersionsSQL, int64(facts.VersionStep)); err != nil {
		return fmt.Errorf("raise the versions of profiles: %w", err)
	}
	return nil
}
