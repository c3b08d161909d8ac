package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func table(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `CREATE TABLE t (n int PRIMARY KEY)`)
	return err
}

func count(t *testing.T, db *pgxpool.Pool) (n int) {
	t.Helper()
	if err := db.QueryRow(context.Background(), `SELECT count(*) FROM t`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(ctx context.Context, tx pgx.Tx, n int) error {
	_, err := tx.Exec(ctx, `INSERT INTO t VALUES ($1)`, n)
	return err
}

func TestInTx(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	boom := errors.New("boom")
	if err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error { return insert(t.Context(), tx, 1) }); err != nil {
		t.Fatal(err)
	}
	if err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error { return errors.Join(insert(t.Context(), tx, 2), boom) }); !errors.Is(err, boom) {
		t.Errorf("error %v, want the function's own", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_ = pg.InTx(t.Context(), db, func(tx pgx.Tx) error { _ = insert(t.Context(), tx, 3); panic("oh") })
	}()
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want only the committed one", n)
	}
}

// A caller that gives up costs the transaction, not the connection.
func TestRollbackAfterCancelKeepsTheConnection(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	ctx, cancel := context.WithCancel(t.Context())
	err = pg.InTx(ctx, conn, func(tx pgx.Tx) error {
		if err := insert(ctx, tx, 1); err != nil {
			return err
		}
		cancel()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if conn.Conn().IsClosed() {
		t.Error("the connection was closed")
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows of a transaction that was given up", n)
	}
}

func TestTransient(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return fmt.Errorf("query: %w", &pgconn.PgError{Code: c}) }
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                   {nil, false},
		"own error":             {errors.New("x"), false},
		"unique violation":      {code("23505"), false},
		"syntax error":          {code("42601"), false},
		"division by zero":      {code("22012"), false},
		"wrong password":        {code("28P01"), false},
		"no such database":      {code("3D000"), false},
		"deadlock":              {code("40P01"), true},
		"serialization failure": {code("40001"), true},
		"shutdown":              {code("57P01"), true},
		"crash":                 {code("57P02"), true},
		"starting up":           {code("57P03"), true},
		"disk full":             {code("53100"), true},
		"too many connections":  {code("53300"), true},
		"I/O error":             {code("58030"), true},
		"connection refused":    {&net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		"connection cut":        {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"timeout":               {context.DeadlineExceeded, true},
	} {
		if got := pg.Transient(tt.err); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// What pgx really returns when the server ends a session, in each place where it can happen.
func TestTransientOfARealConnection(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	kill := func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
		return err
	}
	for name, fn := range map[string]func(tx pgx.Tx) error{
		"in the statement that kills": func(tx pgx.Tx) error { return kill(t.Context(), tx) },
		"in the next statement":       func(tx pgx.Tx) error { _ = kill(t.Context(), tx); return insert(t.Context(), tx, 1) },
		"in the commit":               func(tx pgx.Tx) error { _ = kill(t.Context(), tx); return nil },
	} {
		if err := pg.InTx(t.Context(), db, fn); !pg.Transient(err) {
			t.Errorf("%s: %v is not transient", name, err)
		}
	}
}

func TestOpenFailsAtOnceOnWhatWaitingDoesNotChange(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	for name, bad := range map[string]string{
		"no such database": url[:strings.LastIndex(url, "/")] + "/nowhere",
		"not a URL":        "postgres://%%",
	} {
		start := time.Now()
		if pool, err := pg.Open(t.Context(), bad); err == nil {
			pool.Close()
			t.Errorf("%s: no error", name)
		} else if time.Since(start) > 10*time.Second {
			t.Errorf("%s: took %s", name, time.Since(start))
		}
	}
}

func TestMigrateFromManyInstancesAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "", nil)
	m := pg.Migration{Name: "thing", FS: fstest.MapFS{
		"00001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (n int PRIMARY KEY);\n-- +goose Down\nDROP TABLE t;\n")},
		"00002_t.sql": {Data: []byte("-- +goose Up\nINSERT INTO t VALUES (1);\n-- +goose Down\nDELETE FROM t;\n")},
	}}
	var instances sync.WaitGroup
	for range 4 {
		instances.Go(func() {
			if err := pg.Migrate(context.Background(), db, m); err != nil {
				t.Error(err)
			}
		})
	}
	instances.Wait()
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want the migration run once", n)
	}
}

// A service starts while its database restarts: it waits, and does not end.
func TestMigrateOutlivesARestart(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "", nil)
	if _, err := db.Exec(t.Context(), `CREATE SEQUENCE tries`); err != nil { // its values survive a rollback
		t.Fatal(err)
	}
	m := pg.Migration{Name: "thing", FS: fstest.MapFS{"00001_t.sql": {Data: []byte("-- +goose Up\n" +
		"SELECT pg_terminate_backend(pg_backend_pid()) FROM nextval('tries') AS n WHERE n < 3;\nCREATE TABLE t (n int);\n-- +goose Down\nDROP TABLE t;\n")}}}
	if err := pg.Migrate(t.Context(), db, m); err != nil {
		t.Fatal(err)
	}
	if n := count(t, db); n != 0 {
		t.Errorf("%d rows in the new table", n)
	}
}

func TestBatcher(t *testing.T) {
	t.Parallel()
	var runs, items atomic.Int32
	gate := make(chan struct{})
	b := pg.NewBatcher(10, time.Minute, func(ctx context.Context, in []int) ([]pg.Result[int], error) {
		runs.Add(1)
		items.Add(int32(len(in)))
		<-gate
		out := make([]pg.Result[int], len(in))
		for i, n := range in {
			if n == 13 {
				if len(in) > 1 {
					return nil, errors.New("one of them is bad")
				}
				return nil, errors.New("13 is bad")
			}
			out[i] = pg.Result[int]{Value: n * 2}
			if n == 7 {
				out[i].Err = errors.New("7 is refused")
			}
		}
		return out, nil
	})
	var callers sync.WaitGroup
	for n := range 40 {
		callers.Go(func() {
			got, err := b.Do(context.Background(), n)
			switch {
			case n == 13 && (err == nil || err.Error() != "13 is bad"), n == 7 && err == nil:
				t.Errorf("%d: %v", n, err)
			case n != 13 && n != 7 && (err != nil || got != 2*n):
				t.Errorf("%d: got %d, %v", n, got, err)
			}
		})
	}
	close(gate)
	callers.Wait()
	b.Wait()
	if runs.Load() >= 40+11 {
		t.Errorf("%d runs for 40 items: nothing was shared", runs.Load())
	}
}

// While a batch is at work the next callers gather and go together; one that gives up is not worth a row.
func TestBatcherGathers(t *testing.T) {
	t.Parallel()
	entered, gate := make(chan []int, 10), make(chan struct{})
	b := pg.NewBatcher(100, time.Minute, func(ctx context.Context, in []int) ([]pg.Result[int], error) {
		entered <- in
		<-gate
		return make([]pg.Result[int], len(in)), nil
	})
	var callers sync.WaitGroup
	do := func(ctx context.Context, n int) { callers.Go(func() { _, _ = b.Do(ctx, n) }) }
	do(context.Background(), 0)
	if first := <-entered; len(first) != 1 {
		t.Fatalf("the first caller did not go at once and alone: %v", first)
	}
	gone, leave := context.WithCancel(context.Background())
	left := make(chan struct{})
	go func() { _, _ = b.Do(gone, -1); close(left) }()
	for n := 1; n <= 5; n++ {
		do(context.Background(), n)
	}
	for b.Waiting() < 6 { // until all have queued
		runtime.Gosched()
	}
	leave()
	<-left
	close(gate)
	if second := <-entered; len(second) != 5 {
		t.Errorf("the second batch has %v, want the five who waited", second)
	}
	callers.Wait()
	b.Wait()
}

// A fault of the database is every caller's: trying each alone would only take longer.
func TestBatcherDoesNotRepeatFaults(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	b := pg.NewBatcher(10, time.Minute, func(context.Context, []int) ([]pg.Result[int], error) {
		runs.Add(1)
		return nil, io.ErrUnexpectedEOF
	})
	if _, err := b.Do(t.Context(), 1); !pg.Transient(err) {
		t.Errorf("error %v", err)
	}
	b.Wait()
	if runs.Load() != 1 {
		t.Errorf("ran %d times", runs.Load())
	}
}

// A few rows are read by their keys alone, however many there are and however little is known of them: by an index,
// without workers.
func TestStatementsArePlannedByTheirKeys(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "keys", func(ctx context.Context, pool *pgxpool.Pool) error {
		_, err := pool.Exec(ctx, `CREATE TABLE t (n int PRIMARY KEY, key text) WITH (autovacuum_enabled = off); CREATE INDEX ON t (key);
			INSERT INTO t SELECT i, 'key ' || i || repeat('.', 100) FROM generate_series(1, 200000) AS i`)
		return err
	})
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `PREPARE look (text[]) AS SELECT n FROM t WHERE key = ANY($1) AND NOT EXISTS (SELECT FROM t AS next WHERE next.n = t.n + 1) ORDER BY n`); err != nil {
			return err
		}
		rows, _ := tx.Query(t.Context(), `EXPLAIN EXECUTE look (ARRAY['key 7'])`) // the error surfaces in the collector
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if plan := strings.Join(lines, "\n"); !strings.Contains(plan, "Index") || strings.Contains(plan, "Gather") {
			t.Errorf("planned as\n%s", plan)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
