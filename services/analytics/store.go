package analytics

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
)

// fact is what one message tells of an order.
type fact struct {
	at                                  time.Time
	order                               uuid.UUID
	user                                *string
	amount                              *int64
	currency                            *string
	created, confirmed, cancelled, paid bool
	refusedBy, refusal                  string // empty: it is not about a refusal
}

// Each fact fills columns of its own, and the earliest time wins, so it does not matter what comes first, or twice.
// Orders come sorted, so that two transactions wait for each other in one direction.
const saveFactsSQL = `INSERT INTO orders AS old (generation, order_id, user_id, amount, currency, created_at, confirmed_at, cancelled_at, paid_at, refused_at, refused_by, refusal)
SELECT g, f.order_id, f.user_id, f.amount, f.currency, f.created_at, f.confirmed_at, f.cancelled_at, f.paid_at, f.refused_at, f.refused_by, f.refusal
FROM unnest($2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::text[], $12::text[])
    WITH ORDINALITY AS f (order_id, user_id, amount, currency, created_at, confirmed_at, cancelled_at, paid_at, refused_at, refused_by, refusal, n)
CROSS JOIN generations_of($1) AS g
ORDER BY g, f.n
ON CONFLICT (generation, order_id) DO UPDATE SET
    user_id = COALESCE(old.user_id, excluded.user_id), amount = COALESCE(old.amount, excluded.amount), currency = COALESCE(old.currency, excluded.currency),
    created_at = LEAST(old.created_at, excluded.created_at), confirmed_at = LEAST(old.confirmed_at, excluded.confirmed_at),
    cancelled_at = LEAST(old.cancelled_at, excluded.cancelled_at), paid_at = LEAST(old.paid_at, excluded.paid_at),
    refused_by = CASE WHEN excluded.refused_at < old.refused_at THEN excluded.refused_by ELSE COALESCE(old.refused_by, excluded.refused_by) END,
    refusal = CASE WHEN excluded.refused_at < old.refused_at THEN excluded.refusal ELSE COALESCE(old.refusal, excluded.refusal) END,
    refused_at = LEAST(old.refused_at, excluded.refused_at)`

func saveFacts(ctx context.Context, tx pgx.Tx, to readside.Target, facts map[uuid.UUID]fact) error {
	n := len(facts)
	orders := slices.SortedFunc(maps.Keys(facts), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	users, amounts, currencies := make([]*string, n), make([]*int64, n), make([]*string, n)
	created, confirmed, cancelled, paid, refused := make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n), make([]*time.Time, n)
	refusedBy, refusals := make([]*string, n), make([]*string, n)
	for i, id := range orders {
		f := facts[id]
		users[i], amounts[i], currencies[i] = f.user, f.amount, f.currency
		for _, is := range []struct {
			so   bool
			when []*time.Time
		}{{f.created, created}, {f.confirmed, confirmed}, {f.cancelled, cancelled}, {f.paid, paid}, {f.refusedBy != "", refused}} {
			if is.so {
				is.when[i] = &f.at
			}
		}
		if f.refusedBy != "" {
			refusedBy[i], refusals[i] = &f.refusedBy, &f.refusal
		}
	}
	var b pgx.Batch
	b.Queue(saveFactsSQL, int64(to), orders, users, amounts, currencies, created, confirmed, cancelled, paid, refused, refusedBy, refusals)
	if err := pg.Defer(ctx, tx, &b); err != nil {
		return fmt.Errorf("note facts of %d orders: %w", n, err)
	}
	return nil
}

const saveUpdatesSQL = `INSERT INTO profile_updates AS old (generation, user_id, version, updated_at)
SELECT g, u.user_id, u.version, min(u.updated_at)
FROM unnest($2::text[], $3::bigint[], $4::timestamptz[]) AS u (user_id, version, updated_at) CROSS JOIN generations_of($1) AS g
GROUP BY g, u.user_id, u.version ORDER BY g, u.user_id COLLATE "C", u.version
ON CONFLICT (generation, user_id, version) DO UPDATE SET updated_at = excluded.updated_at WHERE excluded.updated_at < old.updated_at`

func saveUpdates(ctx context.Context, tx pgx.Tx, to readside.Target, msgs []saga.Msg[event.UserProfileUpdatedV1]) error {
	slices.SortFunc(msgs, func(a, b saga.Msg[event.UserProfileUpdatedV1]) int { return cmp.Compare(a.Data.UserID, b.Data.UserID) })
	users, versions, times := make([]string, len(msgs)), make([]int64, len(msgs)), make([]time.Time, len(msgs))
	for i, m := range msgs {
		users[i], versions[i], times[i] = m.Data.UserID, m.Data.Version, m.Time
	}
	var b pgx.Batch
	b.Queue(saveUpdatesSQL, int64(to), users, versions, times)
	if err := pg.Defer(ctx, tx, &b); err != nil {
		return fmt.Errorf("note %d updates of profiles: %w", len(msgs), err)
	}
	return nil
}
