package pgtest_test

import (
	"context"
	"crypto/rand"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestNew(t *testing.T) {
	runs, key := 0, rand.Text() // a key of this run's own: the server outlives it
	migrate := func(ctx context.Context, pool *pgxpool.Pool) error {
		runs++
		_, err := pool.Exec(ctx, "CREATE TABLE t (n int)")
		return err
	}
	for range 2 {
		t.Run("fresh", func(t *testing.T) {
			db := pgtest.New(t, key, migrate)
			if _, err := db.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
				t.Fatal(err)
			}
			var n int
			if err := db.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != 1 {
				t.Errorf("%d rows in a fresh database, want the 1 just written", n)
			}
		})
	}
	if runs != 1 {
		t.Errorf("migrated %d times, want once for one key", runs)
	}
}

func TestServerRestartKeepsAddressAndData(t *testing.T) {
	srv := pgtest.NewServer(t)
	pool, err := pgxpool.New(t.Context(), srv.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "CREATE TABLE t AS SELECT 7 AS n"); err != nil {
		t.Fatal(err)
	}

	srv.Stop(t)
	if err := pool.Ping(t.Context()); err == nil {
		t.Error("the stopped server answers")
	}
	srv.Start(t)

	var n int
	if err := pool.QueryRow(t.Context(), "SELECT n FROM t").Scan(&n); err != nil || n != 7 {
		t.Errorf("after the restart: %d, %v; want 7", n, err)
	}
}
