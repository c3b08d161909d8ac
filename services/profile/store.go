package profile

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

const (
	findSQL = `SELECT user_id, version, name, email, bio, created_at, updated_at FROM profiles WHERE user_id = $1`

	lockSQL = findSQL + ` FOR UPDATE`

	createSQL = `INSERT INTO profiles (user_id, version, name, email, bio) VALUES ($1, 1, $2, $3, $4) ON CONFLICT DO NOTHING
RETURNING user_id, version, name, email, bio, created_at, updated_at`

	changeSQL = `UPDATE profiles SET version = version + 1, name = $2, email = $3, bio = $4, updated_at = now() WHERE user_id = $1
RETURNING user_id, version, name, email, bio, created_at, updated_at`
)

// find reads a user's profile, if there is one.
func find(ctx context.Context, db *pgxpool.Pool, user string) (Profile, bool, error) {
	p, ok, err := one(ctx, db, findSQL, user)
	if err != nil {
		err = fmt.Errorf("read the profile of %s: %w", user, err)
	}
	return p, ok, err
}

// put judges a write and does it, with the event that tells of it, in one transaction. It returns the profile as it is
// then; one without a version where there is none.
func put(ctx context.Context, db *pgxpool.Pool, relay *outbox.Relay, user string, d Draft, c web.Condition) (p Profile, v verdict, err error) {
	for again := true; again; { // when another has created the profile between the look and the insert
		again = false
		var handover *outbox.Handover
		err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
			now, exists, err := one(ctx, tx, lockSQL, user)
			if err != nil {
				return err
			}
			if p, v = now, judge(now, exists, d, c); v != write {
				return nil
			}
			statement := changeSQL
			if !exists {
				statement = createSQL
			}
			var written bool
			if p, written, err = one(ctx, tx, statement, user, d.Name, d.Email, d.Bio); err != nil {
				return err
			}
			if again = !written; again {
				return nil
			}
			var b pgx.Batch
			if handover, err = saga.Queue(&b, relay, "profile", saga.New(ctx, event.UserProfileUpdated, user, p.updated())); err != nil {
				return err
			}
			return pg.Defer(ctx, tx, &b)
		})
		handover.Done(err == nil)
		if err != nil {
			return Profile{}, v, fmt.Errorf("put the profile of %s: %w", user, err)
		}
	}
	return p, v, nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// one reads a query's one row, if there is one.
func one(ctx context.Context, db querier, sql string, args ...any) (Profile, bool, error) {
	rows, _ := db.Query(ctx, sql, args...) // the error surfaces in the collector
	p, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByName[Profile])
	if errors.Is(err, pgx.ErrNoRows) {
		return Profile{}, false, nil
	}
	return p, err == nil, err
}

const retellSQL = `SELECT user_id, version, name, email, bio, created_at, updated_at FROM profiles WHERE user_id > $1 ORDER BY user_id LIMIT $2 FOR UPDATE`

// Rows are locked in the order of their ids, as by whoever else takes several.
const retellOnlySQL = `SELECT user_id, version, name, email, bio, created_at, updated_at FROM profiles WHERE user_id = ANY($1) ORDER BY user_id FOR UPDATE`
