package timer_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/timer"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func setup(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return pgtest.New(t, "timers", func(ctx context.Context, db *pgxpool.Pool) error {
		return pg.Migrate(ctx, db, outbox.Migration(), timer.Migration())
	})
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t))
}

// late is the timer of an event that tells n.
func late(key string, in time.Duration, n int) timer.Change {
	return timer.Change{In: in, Message: outbox.Message{
		Topic: "late", Key: []byte(key), Value: []byte(strconv.Itoa(n)),
		Headers: []broker.Header{{Key: "ce_id", Value: []byte(key + "#" + strconv.Itoa(n))}},
	}}
}

func cancelled(key string) timer.Change {
	return timer.Change{Cancel: true, Message: outbox.Message{Topic: "late", Key: []byte(key)}}
}

func change(t testing.TB, db *pgxpool.Pool, changes ...timer.Change) {
	t.Helper()
	if err := changeAs(t.Context(), db, "svc", changes...); err != nil {
		t.Fatal(err)
	}
}

func changeAs(ctx context.Context, db *pgxpool.Pool, service string, changes ...timer.Change) error {
	var b pgx.Batch
	if err := timer.Queue(&b, service, changes); err != nil {
		return err
	}
	return db.SendBatch(ctx, &b).Close()
}

// fired returns what the outbox holds, as "key=n", in order.
func fired(t testing.TB, db *pgxpool.Pool) []string {
	t.Helper()
	records, err := outbox.Waiting(context.WithoutCancel(t.Context()), db, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = fmt.Sprintf("%s=%s", r.Key, r.Value)
		if id := r.Header("ce_id"); r.Topic != "late" || id != fmt.Sprintf("%s#%s", r.Key, r.Value) {
			t.Errorf("%s of %s has the id %q", out[i], r.Topic, id)
		}
	}
	return out
}

func fire(t testing.TB, db *pgxpool.Pool) {
	t.Helper()
	if _, err := timer.NewRunner(db, nil, timer.Config{Batch: 2}).Fire(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func pending(t testing.TB, db *pgxpool.Pool) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM timers`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func want(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("fired %q, want %q", got, want)
	}
}

// What is due fires, in the order of due times, whatever batches it comes in; what is not, stays.
func TestFire(t *testing.T) {
	t.Parallel()
	db := setup(t)
	change(t, db, late("a", -time.Minute, 1), late("b", time.Hour, 2), late("c", -time.Hour, 3), late("d", 0, 4),
		late("", -2*time.Minute, 5), late("\xff", -3*time.Minute, 6))
	fire(t, db)
	want(t, fired(t, db), "c=3", "\xff=6", "=5", "a=1", "d=4")
	fire(t, db)
	if n := pending(t, db); n != 1 || len(fired(t, db)) != 5 {
		t.Errorf("%d timers are left, and %q fired", n, fired(t, db))
	}
}

// A service's timer of a topic and key is one: it is replaced, event and all, earlier or later, and another service's
// is another.
func TestSetAgain(t *testing.T) {
	t.Parallel()
	db := setup(t)
	change(t, db, late("a", time.Hour, 1), late("b", -time.Hour, 1), late("c", time.Hour, 1))
	change(t, db, late("a", -time.Minute, 2), late("b", time.Hour, 2), late("c", 0, 2), late("c", time.Hour, 3))
	if err := changeAs(t.Context(), db, "other", late("a", -time.Second, 7)); err != nil {
		t.Fatal(err)
	}
	fire(t, db)
	want(t, fired(t, db), "a=2", "a=7")
	at := late("c", 0, 4)
	at.At = time.Now().Add(-time.Hour)
	change(t, db, at)
	fire(t, db)
	want(t, fired(t, db), "a=2", "a=7", "c=4")
}

// Of several changes of one timer in one transaction the last counts; cancelling what is not there does nothing.
func TestCancel(t *testing.T) {
	t.Parallel()
	db := setup(t)
	change(t, db, late("a", 0, 1), late("b", 0, 1), late("c", 0, 1), cancelled("c"),
		cancelled("d"), late("d", 0, 1), cancelled("never set"))
	change(t, db, cancelled("a"), cancelled("never set"))
	if err := changeAs(t.Context(), db, "other", cancelled("b")); err != nil {
		t.Fatal(err)
	}
	fire(t, db)
	got := fired(t, db)
	slices.Sort(got)
	want(t, got, "b=1", "d=1")
	change(t, db, cancelled("b"))
	if n := pending(t, db); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	big := late("a", 0, 1)
	big.Message.Value = make([]byte, outbox.MaxMessageBytes)
	var b pgx.Batch
	err := timer.Queue(&b, "svc", []timer.Change{late("b", 0, 1), big})
	if err == nil || !strings.Contains(err.Error(), "timer for late has 1044489 bytes") || b.Len() > 0 {
		t.Errorf("%v, with %d statements", err, b.Len())
	}
}

// A timer exists if and only if the transaction commits that sets it.
func TestSetInATransaction(t *testing.T) {
	t.Parallel()
	db := setup(t)
	for _, commit := range []bool{false, true} {
		tx, err := db.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var b pgx.Batch
		if err := timer.Queue(&b, "svc", []timer.Change{late("a", 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := tx.SendBatch(t.Context(), &b).Close(); err != nil {
			t.Fatal(err)
		}
		fire(t, db)
		if got := fired(t, db); len(got) > 0 {
			t.Errorf("fired before the commit: %q", got)
		}
		end := tx.Rollback
		if commit {
			end = tx.Commit
		}
		if err := end(t.Context()); err != nil {
			t.Fatal(err)
		}
		fire(t, db)
		if got := fired(t, db); (len(got) == 1) != commit {
			t.Errorf("commit is %t, and %q fired", commit, got)
		}
	}
}

// Whoever comes first wins: a timer is cancelled, and then it does not fire, or it fires, and then nothing is
// cancelled.
func TestCancelRacesWithFiring(t *testing.T) {
	t.Parallel()
	const timers = 600
	db := setup(t)
	changes := make([]timer.Change, timers)
	for i := range changes {
		changes[i] = late(strconv.Itoa(i), 0, i)
	}
	change(t, db, changes...)
	gone := make([]bool, timers)
	var g errgroup.Group
	for half := range 2 {
		g.Go(func() error { // from both ends
			for n := range timers / 2 {
				i := n
				if half == 1 {
					i = timers - 1 - n
				}
				var b pgx.Batch
				if err := timer.Queue(&b, "svc", []timer.Change{cancelled(strconv.Itoa(i))}); err != nil {
					return err
				}
				res := db.SendBatch(t.Context(), &b)
				tag, err := res.Exec()
				gone[i] = tag.RowsAffected() > 0
				if err != nil {
					return err
				}
				if err := res.Close(); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for left := true; left; {
				if _, err := timer.NewRunner(db, nil, timer.Config{Batch: 7}).Fire(t.Context()); err != nil {
					return err
				}
				if err := db.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM timers)`).Scan(&left); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	times, cancels := make([]int, timers), 0
	for _, e := range fired(t, db) {
		var i, n int
		if _, err := fmt.Sscanf(e, "%d=%d", &i, &n); err != nil {
			t.Fatal(err)
		}
		times[i]++
	}
	for i, n := range times {
		if gone[i] {
			cancels++
			n++
		}
		if n != 1 {
			t.Errorf("timer %d fired %d times; cancelled: %t", i, times[i], gone[i])
		}
	}
	if cancels == 0 || cancels == timers {
		t.Errorf("%d of %d were cancelled: there was no race", cancels, timers)
	}
}
