package facts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
)

// Identity tells one database from another, and from an older copy of itself. Who compares what services hold remembers
// it: what a wrong, an empty or an older database holds looks wrong in all that it lacks, and must not be repaired by.
//
// The service's schema has the table database_identity: one row, with a random id and the epoch.
type Identity struct {
	ID    uuid.UUID `json:"id" doc:"random, given to the database when its schema was made"`
	Epoch int64     `json:"epoch" doc:"1, and one more each time that somebody has said that the database was restored"`

	// Copy changes when a dump is restored (the database or the table is created anew, or on another server), when a
	// base backup is recovered and when a standby takes over (another timeline).
	Copy string `json:"copy" doc:"PostgreSQL's system identifier and timeline, and the numbers of the database and of its table of identity, which another copy does not have"`

	// Written tells an older image of the same server, such as a snapshot of its volume: there it is less.
	Written int64 `json:"written" doc:"bytes that the server has written to its log, ever: it only grows"`
}

const (
	// Whether this may be read is for the server's administrator to say; by default, anybody may.
	identitySQL = `SELECT i.id, i.epoch, concat_ws('/', c.system_identifier, substr(pg_walfile_name(l.lsn), 1, 8), d.oid, 'database_identity'::regclass::oid),
    (l.lsn - '0/0'::pg_lsn)::bigint
FROM database_identity i, pg_control_system() c, pg_database d, (SELECT pg_current_wal_flush_lsn() AS lsn) AS l WHERE d.datname = current_database()`

	raiseEpochSQL = `UPDATE database_identity SET epoch = epoch + 1 WHERE epoch = $1`
)

// VersionStep is what versions grow by when a database was restored: more than were published after the copy was made.
const VersionStep = 1_000_000

// Identified serves a database's identity, and is told when the database was restored.
type Identified struct {
	DB *pgxpool.Pool

	// Restored is called in the transaction that raises the epoch, and makes what was published since the copy was made
	// harmless: see [RaiseVersions]. nil: nothing has a version.
	Restored func(ctx context.Context, tx pgx.Tx) error
}

// RaiseVersions is an [Identified.Restored] for a table whose rows have versions: all grow beyond those that were
// published after the copy was made that the database was restored from. The next change is then newer to who listens
// than what it had heard, and not one of the versions that exist twice.
func RaiseVersions(table string) func(ctx context.Context, tx pgx.Tx) error {
	return func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE `+pgx.Identifier{table}.Sanitize()+` SET version = version + $1`, int64(VersionStep)); err != nil {
			return fmt.Errorf("raise the versions of %s: %w", table, err)
		}
		return nil
	}
}

type restoredInput struct {
	Body struct {
		Seen int64 `json:"seen" minimum:"1" maximum:"9007199254740991" doc:"the epoch as the sender has seen it; the same request again changes nothing" example:"1"`
	}
}

type identityOutput struct{ Body Identity }

// Register adds the operations to an API.
func (s Identified) Register(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "identify-database", Method: http.MethodGet, Path: "/facts/identity", Summary: "Tell which database this is, and which copy of it",
		Errors: []int{http.StatusServiceUnavailable},
	}, s.identify)
	huma.Register(api, huma.Operation{
		OperationID: "restored", Method: http.MethodPost, Path: "/restored", Summary: "Say that the database was restored from an older copy",
		Description: "Raises the epoch, which keeps the checker from repairing anything before somebody confirms it, and has versions grow beyond those that were published " +
			"after the copy was made. If the epoch is not what was seen, nor the next one, it is a 409 of the type changed-meanwhile.",
		Errors: []int{http.StatusConflict, http.StatusUnprocessableEntity, http.StatusServiceUnavailable},
	}, s.restored)
}

func (s Identified) identify(ctx context.Context, _ *struct{}) (*identityOutput, error) {
	is, err := readIdentity(ctx, s.DB)
	if err != nil {
		return nil, web.Fault(ctx, err)
	}
	return &identityOutput{is}, nil
}

func (s Identified) restored(ctx context.Context, in *restoredInput) (*identityOutput, error) {
	err := pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, raiseEpochSQL, in.Body.Seen)
		if err != nil || tag.RowsAffected() == 0 || s.Restored == nil {
			return err
		}
		return s.Restored(ctx, tx)
	})
	if err != nil {
		return nil, web.Fault(ctx, fmt.Errorf("note that the database was restored: %w", err))
	}
	is, err := readIdentity(ctx, s.DB)
	switch {
	case err != nil:
		return nil, web.Fault(ctx, err)
	case is.Epoch != in.Body.Seen+1:
		return nil, Changed(strconv.FormatInt(in.Body.Seen, 10), strconv.FormatInt(is.Epoch, 10))
	}
	return &identityOutput{is}, nil
}

func readIdentity(ctx context.Context, db *pgxpool.Pool) (Identity, error) {
	rows, _ := db.Query(ctx, identitySQL) // the error surfaces in the collector
	is, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[Identity])
	if errors.Is(err, pgx.ErrNoRows) {
		err = errors.New("the table database_identity is empty")
	}
	if err != nil {
		return Identity{}, fmt.Errorf("read which database this is: %w", err)
	}
	return is, nil
}
