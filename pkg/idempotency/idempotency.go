// Package idempotency keeps, under a key that the client chose, what came of a request: its result, or the refusal that
// is its lasting answer. A request that is sent again gets the same answer and does nothing again.
//
// The answer is stored in the transaction that does the work, so there is no moment in which one exists without the
// other: a crash leaves both or neither, and the key is free again. A transaction that is at work on a key holds an
// advisory lock on it, so that a second request with the key learns at once, on any instance, that the first is in
// progress.
//
// An error is one of two things, as everywhere here. A refusal (out of stock, insufficient balance) is an outcome: it
// is stored and given again. A fault (a lost connection, a full disk) is none: nothing is stored, and trying again
// tries again.
//
// [Keys.Do] is for one request in one transaction, [Keys.DoAll] for many that are worked on together. A group commit,
// whose requests have nothing to do with each other, uses [Keys.Claim] and [Keys.Queue]. Those are two statements,
// however many requests.
//
// The client's side is the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header); see [ParseKey].
package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/pg"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migration is the schema: one table.
func Migration() pg.Migration {
	return pg.Migration{Name: "idempotency", FS: pg.Dir(migrations, "migrations")}
}

var (
	// ErrMismatch says that the key was used before for a different request. Over HTTP: 422.
	ErrMismatch = errors.New("the idempotency key belongs to a different request")
	// ErrInProgress says that another transaction is at work on the key. Trying again gets its answer. Over HTTP: 409.
	ErrInProgress = errors.New("a request with this idempotency key is in progress")
)

// Key identifies a request. Keys of different scopes have nothing to do with each other: the scope is who chose the
// key, such as a user and an operation, so that nobody gets at another's answers.
type Key struct {
	Scope, Key  string
	Fingerprint [32]byte // of what the request asks for; see [Fingerprint]
}

// Fingerprint digests the parts of a request that make it the same request. The parts are kept apart: "a", "bc" differs
// from "ab", "c".
func Fingerprint(parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	var size [8]byte
	for _, part := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}

// Result is what came of a request, in the caller's terms: over HTTP the response's status, the headers that must be
// sent again, and its body, byte for byte. A refusal may be a Result with such a status, or, where there is no HTTP,
// one with Err.
type Result struct {
	Status int
	Header map[string]string
	Body   []byte
	Err    *Error
}

// Error is a lasting refusal. Only its two texts are stored, so the first caller and all later ones see the same.
type Error struct {
	Code    string // for programs, such as "insufficient-balance"
	Message string // for people
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// Refuse makes err the lasting answer to a request, when the function that [Keys.Do] runs returns it.
func Refuse(code string, err error) error { return &Error{Code: code, Message: err.Error()} }

// Keys is how keys are handled. The zero value is ready to use. It is safe for concurrent use.
type Keys struct {
	Retention time.Duration    // how long an answer is kept, default 24 h; after that the key is free again
	Wait      bool             // wait for a transaction that is at work on a key instead of ErrInProgress
	Now       func() time.Time // default clock.Now
}

func (k Keys) now() time.Time {
	if k.Now != nil {
		return k.Now()
	}
	return clock.Now()
}

func (k Keys) retention() time.Duration { return cmp.Or(k.Retention, 24*time.Hour) }

// Do runs fn, which does the work of a request within tx, unless an answer is stored under the key: then it returns
// that.
//
// When fn returns a Result, it is stored. When it returns an [Error] (see [Refuse]), what it wrote is undone and the
// refusal is stored; Do returns it in Result.Err, not as its own error, because tx must be committed for it to last.
// Every other error of fn, Do returns: what fn wrote is undone, and nothing is stored under the key. A fault is one,
// and tx must be rolled back, as it must for ErrMismatch and ErrInProgress. A refusal that is not final is another: tx
// can go on and be committed, and the key is free again then.
func (k Keys) Do(ctx context.Context, tx pgx.Tx, key Key, fn func(context.Context, pgx.Tx) (Result, error)) (Result, error) {
	results, err := k.DoAll(ctx, tx, []Key{key}, func([]int) ([]*Result, error) {
		var result Result
		err := pg.InTx(ctx, tx, func(savepoint pgx.Tx) (err error) {
			result, err = fn(ctx, savepoint)
			return err
		})
		if refusal, ok := errors.AsType[*Error](err); ok {
			return []*Result{{Err: refusal}}, nil
		}
		return []*Result{&result}, err
	})
	if err != nil {
		return Result{}, err
	}
	return *results[0], nil
}

// DoAll is [Keys.Do] for many keys, in as many statements as for one: fn does, within tx, the work for those that have
// no answer yet, which it is given by their places in keys, and returns a Result for each. One that is nil is no answer
// that lasts: the key is free again when tx ends. DoAll returns what is stored under each key then, in order.
//
// Nothing is undone for one key alone. An error, fn's or DoAll's own, is a fault of all of it, and tx must be rolled
// back; so it must where a key is another request's (ErrMismatch), or is there twice or elsewhere in progress
// (ErrInProgress).
func (k Keys) DoAll(ctx context.Context, tx pgx.Tx, keys []Key, fn func(fresh []int) ([]*Result, error)) ([]*Result, error) {
	claims, err := k.Claim(ctx, tx, keys)
	if err != nil {
		return nil, err
	}
	results := make([]*Result, len(keys))
	var fresh []int
	for i, c := range claims {
		switch c.State {
		case Replay:
			results[i] = &c.Result
		case Mismatch:
			return nil, fmt.Errorf("%s: %w", keys[i], ErrMismatch)
		case InProgress:
			return nil, fmt.Errorf("%s: %w", keys[i], ErrInProgress)
		case New:
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return results, nil
	}
	done, err := fn(fresh)
	if err != nil {
		return nil, err
	}
	var answers []Stored
	for n, i := range fresh {
		if results[i] = done[n]; done[n] != nil {
			answers = append(answers, Stored{keys[i], *done[n]})
		}
	}
	return results, k.Store(ctx, tx, answers)
}

// lock is the advisory lock of a key. Two keys that fall together are only handled one after the other.
func (k Key) lock() int64 {
	sum := Fingerprint([]byte("idempotency"), []byte(k.Scope), []byte(k.Key))
	return int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any 64 bits will do
}

func (k Key) String() string { return fmt.Sprintf("%q of %q", k.Key, k.Scope) }
