package idempotency

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// State is what a claim found.
type State int

// The states of a claim.
const (
	New        State = iota // nobody has used the key: do the work and store its result
	Replay                  // the work was done: answer with the stored result
	Mismatch                // the key belongs to a different request
	InProgress              // another transaction is at work on the key, or an earlier request of the same call
)

func (s State) String() string {
	return [...]string{"new", "replay", "mismatch", "in progress"}[s]
}

// Claim is what is known of one key. Result is set for a Replay.
type Claim struct {
	State  State
	Result Result
}

// Both return each lock with whether it is held now, and they are given sorted locks: who waits must take them in one
// order.
const (
	lockSQL = `SELECT l, pg_try_advisory_xact_lock(l) FROM unnest($1::bigint[]) AS l`
	waitSQL = `SELECT l, pg_advisory_xact_lock(l) IS NOT NULL FROM unnest($1::bigint[]) AS l`
)

// An expired row counts as absent until Prune takes it away or storeSQL takes it over.
const findSQL = `SELECT asked.n - 1, i.fingerprint, i.status, i.header, i.body, i.error_code, i.error
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (scope, key, n)
JOIN idempotency i ON i.scope = asked.scope AND i.key = asked.key
WHERE i.expires_at > $3`

// Claim finds out about many keys in one round-trip and returns a Claim for each, in order. New ones are reserved to tx
// until it ends, each with an advisory lock (PostgreSQL has room for max_locks_per_transaction * max_connections of
// these, 6,400 by default). Their results must be stored with [Keys.Store] in the same transaction; a key may be
// claimed once in it.
//
// tx must be READ COMMITTED, which is PostgreSQL's default. In stricter ones a result that is committed after tx began
// is not seen here, and Store then fails.
func (k Keys) Claim(ctx context.Context, tx pgx.Tx, keys []Key) ([]Claim, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	locks := make([]int64, len(keys))
	scopes, names := make([]string, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		locks[i], scopes[i], names[i] = key.lock(), key.Scope, key.Key
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(locks)))
	lock := lockSQL
	if k.Wait {
		lock = waitSQL
	}

	// The locks come first, and the answers in a statement of its own, whose snapshot is taken when they are held:
	// whoever held one before has committed by then, and what it stored is seen.
	held := make(map[int64]bool, len(distinct))
	claims := make([]Claim, len(keys))
	found := make([]bool, len(keys))
	var b pgx.Batch
	b.Queue(lock, distinct).Query(func(rows pgx.Rows) error {
		var l int64
		var ok bool
		_, err := pgx.ForEachRow(rows, []any{&l, &ok}, func() error { held[l] = ok; return nil })
		return err
	})
	b.Queue(findSQL, scopes, names, k.now()).Query(func(rows pgx.Rows) error {
		var r row
		_, err := pgx.ForEachRow(rows, r.fields(), func() error {
			found[r.n] = true
			claims[r.n] = r.claim(keys[r.n])
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("claim %d idempotency keys: %w", len(keys), err)
	}

	type id struct{ scope, key string }
	taken := make(map[id]bool, len(keys))
	for i, key := range keys {
		if found[i] {
			continue
		}
		if this := (id{key.Scope, key.Key}); taken[this] || !held[locks[i]] {
			claims[i].State = InProgress
		} else {
			taken[this] = true
		}
	}
	return claims, nil
}

// row is what findSQL returns.
type row struct {
	n           int
	fingerprint []byte
	result      Result
	code, text  *string
}

func (r *row) fields() []any {
	return []any{&r.n, &r.fingerprint, &r.result.Status, &r.result.Header, &r.result.Body, &r.code, &r.text}
}

func (r *row) claim(key Key) Claim {
	if string(r.fingerprint) != string(key.Fingerprint[:]) {
		return Claim{State: Mismatch}
	}
	result := r.result
	if len(result.Header) == 0 {
		result.Header = nil
	}
	if r.code != nil {
		result.Err = &Error{Code: *r.code, Message: *r.text}
	}
	return Claim{State: Replay, Result: result}
}

// Stored is a key with the result to store under it.
type Stored struct {
	Key    Key
	Result Result
}

const storeSQL = `INSERT INTO idempotency AS i (scope, key, fingerprint, status, header, body, error_code, error, created_at, expires_at)
SELECT *, $9::timestamptz, $10::timestamptz
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[], $5::jsonb[], $6::bytea[], $7::text[], $8::text[])
ON CONFLICT (scope, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, header = excluded.header, body = excluded.body,
    error_code = excluded.error_code, error = excluded.error, created_at = excluded.created_at, expires_at = excluded.expires_at
WHERE i.expires_at <= excluded.created_at`

// Store keeps the results of keys that were New, in one statement. The work of the transaction and its answers are then
// committed together. An error means that tx must be rolled back; it is ErrInProgress if a key turned out to be taken,
// which cannot happen to one that was claimed in tx.
func (k Keys) Store(ctx context.Context, tx pgx.Tx, results []Stored) error {
	var b pgx.Batch
	k.Queue(&b, results)
	return tx.SendBatch(ctx, &b).Close()
}

// Queue is [Keys.Store] as part of a batch of statements, which saves its round-trip. Its error is that of the batch.
func (k Keys) Queue(b *pgx.Batch, results []Stored) {
	n := len(results)
	if n == 0 {
		return
	}
	scopes, names, fingerprints := make([]string, n), make([]string, n), make([][]byte, n)
	statuses, headers, bodies := make([]int, n), make([]string, n), make([][]byte, n)
	codes, texts := make([]*string, n), make([]*string, n)
	for i, r := range results {
		scopes[i], names[i], fingerprints[i] = r.Key.Scope, r.Key.Key, r.Key.Fingerprint[:]
		statuses[i], headers[i], bodies[i] = r.Result.Status, encode(r.Result.Header), r.Result.Body
		if e := r.Result.Err; e != nil {
			codes[i], texts[i] = &e.Code, &e.Message
		}
	}
	now := k.now()
	b.Queue(storeSQL, scopes, names, fingerprints, statuses, headers, bodies, codes, texts, now, now.Add(k.retention())).
		Exec(func(tag pgconn.CommandTag) error {
			if stored := tag.RowsAffected(); stored != int64(n) {
				return fmt.Errorf("store %d results, the first under %s: %d keys are taken: %w", n, results[0].Key, int64(n)-stored, ErrInProgress)
			}
			return nil
		})
}

func encode(header map[string]string) string {
	if len(header) == 0 {
		return "{}"
	}
	text, _ := json.Marshal(header) // texts can always be encoded
	return string(text)
}

const forgetSQL = `DELETE FROM idempotency WHERE scope = $1 AND key = $2`

// Forget adds the removal of a key's answer to a batch of statements of one transaction: what is asked for under the
// key then runs again. It is for work that was undone, or turned out not to have been done.
func (Keys) Forget(b *pgx.Batch, key Key) { b.Queue(forgetSQL, key.Scope, key.Key) }

const pruneSQL = `DELETE FROM idempotency WHERE expires_at <= $1 AND (scope, key) IN (
    SELECT scope, key FROM idempotency WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
)`

// Execer is what Prune needs of a database.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Prune deletes expired keys, at most limit of them, and returns how many it was. A key that is taken over meanwhile
// stays.
func (k Keys) Prune(ctx context.Context, db Execer, limit int) (int, error) {
	tag, err := db.Exec(ctx, pruneSQL, k.now(), limit)
	if err != nil {
		return 0, fmt.Errorf("prune idempotency keys: %w", err)
	}
	return int(tag.RowsAffected()), nil
}
