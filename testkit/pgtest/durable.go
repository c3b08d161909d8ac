package pgtest

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// Durable starts a server that ends with the test and whose commits wait for the disk, as in production: for
// benchmarks. Its WAL can be decoded. It returns the database postgres, which is empty.
func Durable(t testing.TB) *pgxpool.Pool {
	t.Helper()
	srv := NewServer(t)
	db, err := pg.Open(t.Context(), srv.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"fsync = on", "synchronous_commit = on", "full_page_writes = on", "wal_level = logical"} {
		if _, err := db.Exec(t.Context(), `ALTER SYSTEM SET `+setting); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	srv.Restart(t)
	if db, err = pg.Open(t.Context(), srv.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}
