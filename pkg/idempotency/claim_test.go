package idempotency_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/idempotency"
	"github.com/converge-dev/converge/pkg/pg"
)

func store(t *testing.T, db *pgxpool.Pool, keys idempotency.Keys, results ...idempotency.Stored) {
	t.Helper()
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error { return keys.Store(t.Context(), tx, results) })
	if err != nil {
		t.Fatal(err)
	}
}

func claim(t *testing.T, db *pgxpool.Pool, keys idempotency.Keys, asked ...idempotency.Key) (claims []idempotency.Claim) {
	t.Helper()
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) (err error) {
		claims, err = keys.Claim(t.Context(), tx, asked)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestClaimManyAtOnce(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	refused := idempotency.Result{Status: 422, Header: map[string]string{"A": "b"}, Body: []byte("{}"), Err: &idempotency.Error{Code: "c", Message: "m"}}
	store(t, db, keys, idempotency.Stored{Key: key("stored"), Result: created}, idempotency.Stored{Key: key("refused"), Result: refused})
	begin(t, db, keys, key("busy"))
	other := key("stored")
	other.Fingerprint[0]++

	got := claim(t, db, keys, key("new"), key("stored"), key("busy"), key("new"), other, key("refused"), key("stored"), key("new2"))
	want := []idempotency.Claim{
		{State: idempotency.New},
		{State: idempotency.Replay, Result: created},
		{State: idempotency.InProgress},
		{State: idempotency.InProgress}, // the same as the first
		{State: idempotency.Mismatch},
		{State: idempotency.Replay, Result: refused},
		{State: idempotency.Replay, Result: created},
		{State: idempotency.New},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if got := claim(t, db, keys); got != nil {
		t.Errorf("no keys: %v", got)
	}
}

// A result that is stored without a claim must not replace one that is there, nor be lost unnoticed.
func TestStoreOfATakenKeyFails(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	store(t, db, keys, idempotency.Stored{Key: key("a"), Result: created})
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		return keys.Store(t.Context(), tx, []idempotency.Stored{{Key: key("b")}, {Key: key("a")}})
	})
	if !errors.Is(err, idempotency.ErrInProgress) || !strings.Contains(err.Error(), "1 keys are taken") {
		t.Errorf("error is %v, want ErrInProgress", err)
	}
	if got := claim(t, db, keys, key("a"), key("b")); got[0].Result.Status != created.Status || got[1].State != idempotency.New {
		t.Errorf("afterwards: %v", got)
	}
}

// In a transaction whose snapshot is older than the stored answer, the work is done twice, but not committed twice.
func TestStricterIsolationFailsClosed(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	tx, err := db.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // the transaction has failed
	if _, err := tx.Exec(t.Context(), `SELECT`); err != nil {
		t.Fatal(err)
	}
	store(t, db, keys, idempotency.Stored{Key: key("k"), Result: created})
	if _, err := keys.Do(t.Context(), tx, key("k"), working(created, nil)); err == nil {
		t.Error("a second result was stored under the key")
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	db := setup(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := idempotency.Keys{Retention: time.Hour, Now: func() time.Time { return now }}
	run := func(status int) int {
		t.Helper()
		got, err := do(t.Context(), db, keys, key("k"), working(idempotency.Result{Status: status}, nil))
		if err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	if got := run(1); got != 1 {
		t.Errorf("got %d", got)
	}
	now = now.Add(time.Hour - time.Millisecond)
	if got := run(2); got != 1 {
		t.Errorf("just before it expires: got %d, want the first answer", got)
	}
	now = now.Add(time.Millisecond)
	if got := run(3); got != 3 {
		t.Errorf("when it has expired: got %d, want the work to be done again", got)
	}
	now = now.Add(time.Hour - time.Millisecond)
	if got := run(4); got != 3 {
		t.Errorf("the second answer: got %d, want it to be kept as long as the first", got)
	}
	effects(t, db, 2)
}

func TestPrune(t *testing.T) {
	t.Parallel()
	db := setup(t)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys := idempotency.Keys{Retention: time.Hour, Now: func() time.Time { return now }}
	for i := range 5 {
		store(t, db, keys, idempotency.Stored{Key: key(strconv.Itoa(i))})
		now = now.Add(time.Minute)
	}
	now = now.Add(56 * time.Minute) // 0 and 1 have expired
	var got []int
	for range 3 {
		n, err := keys.Prune(t.Context(), db, 1)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if diff := cmp.Diff([]int{1, 1, 0}, got); diff != "" {
		t.Errorf("pruned (-want +got):\n%s", diff)
	}
	for i, c := range claim(t, db, keys, key("0"), key("1"), key("2"), key("3"), key("4")) {
		if gone := c.State == idempotency.New; gone != (i < 2) {
			t.Errorf("key %d is %v", i, c.State)
		}
	}
}

func TestPrunerTakesAllThatHasExpired(t *testing.T) {
	t.Parallel()
	db := setup(t)
	past := idempotency.Keys{Retention: time.Millisecond, Now: func() time.Time { return time.Now().Add(-time.Hour) }}
	var results []idempotency.Stored
	for i := range 25 {
		results = append(results, idempotency.Stored{Key: key(strconv.Itoa(i))})
	}
	store(t, db, past, results...)
	store(t, db, idempotency.Keys{}, idempotency.Stored{Key: key("young")})

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	var log strings.Builder
	pruner := idempotency.Pruner{DB: db, Interval: time.Millisecond, Step: 10, Log: slog.New(slog.NewTextHandler(&log, nil))}
	go func() { done <- pruner.Run(ctx) }()
	eventually(t, func() error {
		var left int
		err := db.QueryRow(t.Context(), `SELECT count(*) FROM idempotency`).Scan(&left)
		if err == nil && left != 1 {
			err = errors.New(strconv.Itoa(left) + " rows are left, want the young one")
		}
		return err
	})
	stop()
	if err := <-done; err != nil || log.Len() > 0 {
		t.Errorf("Run returned %v and logged %s", err, log.String())
	}
}

// Many ask for the same few keys at once, some of them crash, all try again: each key's work is done once, and
// everybody gets the same answer.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]bool{"trying again": false, "waiting": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const clients, requests, names = 16, 15, 5
			db, keys := setup(t), idempotency.Keys{Wait: wait}
			var runs atomic.Int64
			var answers sync.Map
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					for i := range requests {
						name := strconv.Itoa(i % names)
						work := func(ctx context.Context, tx pgx.Tx) (idempotency.Result, error) {
							n := int(runs.Add(1))
							if n%3 == 0 {
								return idempotency.Result{}, errors.New("crash")
							}
							return working(idempotency.Result{Status: n}, nil)(ctx, tx)
						}
						got, err := do(t.Context(), db, keys, key(name), work)
						for err != nil && t.Context().Err() == nil {
							if !errors.Is(err, idempotency.ErrInProgress) && err.Error() != "crash" {
								t.Error(err)
								return
							}
							got, err = do(t.Context(), db, keys, key(name), work)
						}
						if first, _ := answers.LoadOrStore(name, got.Status); first != got.Status {
							t.Errorf("key %s answered %v and %v", name, first, got.Status)
						}
					}
				})
			}
			wg.Wait()
			effects(t, db, names)
		})
	}
}

// Group commits of overlapping keys from several instances: every key is worked on in exactly one of them.
func TestOverlappingGroupCommits(t *testing.T) {
	t.Parallel()
	db, keys := setup(t), idempotency.Keys{}
	const instances, names = 6, 60
	var wg sync.WaitGroup
	for range instances {
		wg.Go(func() {
			pending := rand.Perm(names)
			for len(pending) > 0 && t.Context().Err() == nil {
				n := min(len(pending), 1+rand.IntN(20))
				again, err := groupCommit(t.Context(), db, keys, pending[:n])
				if err != nil {
					t.Error(err)
					return
				}
				pending = append(again, pending[n:]...)
				rand.Shuffle(len(pending), func(i, j int) { pending[i], pending[j] = pending[j], pending[i] })
			}
		})
	}
	wg.Wait()
	effects(t, db, names)
}

func groupCommit(ctx context.Context, db *pgxpool.Pool, keys idempotency.Keys, batch []int) (again []int, err error) {
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		asked := make([]idempotency.Key, len(batch))
		for i, n := range batch {
			asked[i] = key(strconv.Itoa(n))
		}
		claims, err := keys.Claim(ctx, tx, asked)
		if err != nil {
			return err
		}
		var b pgx.Batch
		var results []idempotency.Stored
		for i, c := range claims {
			switch c.State {
			case idempotency.New:
				b.Queue(`INSERT INTO effects VALUES ($1)`, asked[i].Key)
				results = append(results, idempotency.Stored{Key: asked[i], Result: created})
			case idempotency.InProgress:
				again = append(again, batch[i])
			case idempotency.Mismatch:
				return idempotency.ErrMismatch
			}
		}
		keys.Queue(&b, results)
		return tx.SendBatch(ctx, &b).Close()
	})
	return again, err
}
