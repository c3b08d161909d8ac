package facts_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
)

const identityTableSQL = `CREATE TABLE database_identity (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), id uuid NOT NULL DEFAULT gen_random_uuid(), epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0));
INSERT INTO database_identity DEFAULT VALUES;`

// A database is the same one, with more written, until it is restored: a dump makes its table anew. Who says that it
// was restored raises the epoch once, however often it is said, and has versions grow once.
func TestIdentity(t *testing.T) {
	db := pgtest.New(t, "identity", func(ctx context.Context, db *pgxpool.Pool) error {
		_, err := db.Exec(ctx, identityTableSQL+`CREATE TABLE things (version bigint); INSERT INTO things VALUES (3)`)
		return err
	})
	server := web.New(web.Config{Service: "facts"})
	facts.Identified{DB: db, Restored: facts.RaiseVersions("things")}.Register(server.API)
	ask := func(method, path, body string, status int) (is facts.Identity) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		server.ServeHTTP(w, req)
		if err := json.Unmarshal(w.Body.Bytes(), &is); w.Code != status || err != nil {
			t.Fatalf("%s %s %s: %d %s (%v), want %d", method, path, body, w.Code, w.Body, err, status)
		}
		return is
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	look := func() facts.Identity { return ask(http.MethodGet, "/facts/identity", "", 200) }
	was := look()
	exec(`BEGIN; SET LOCAL synchronous_commit = on; UPDATE things SET version = version + 1; COMMIT`) // what counts is what is on the disk
	if is := look(); is.ID != was.ID || is.Epoch != 1 || is.Copy != was.Copy || strings.Count(is.Copy, "/") != 3 || is.Written <= was.Written {
		t.Errorf("after a write: %+v, before %+v", is, was)
	}
	for range 2 {
		if is := ask(http.MethodPost, "/restored", `{"seen":1}`, 200); is.ID != was.ID || is.Epoch != 2 {
			t.Errorf("restored: %+v", is)
		}
	}
	ask(http.MethodPost, "/restored", `{"seen":4}`, 409)
	ask(http.MethodPost, "/restored", `{"seen":0}`, 422)
	var version int64
	if err := db.QueryRow(t.Context(), `SELECT version FROM things`).Scan(&version); err != nil || version != 4+facts.VersionStep {
		t.Errorf("version %d, %v; want it raised once", version, err)
	}

	exec(`CREATE TABLE dump AS TABLE database_identity; DROP TABLE database_identity; ALTER TABLE dump RENAME TO database_identity`)
	if is := look(); is.ID != was.ID || is.Copy == was.Copy {
		t.Errorf("restored from a dump: %+v, before %+v", is, was)
	}

	// Whoever may connect may ask: the services' roles are nobody special.
	exec(`DO $$ BEGIN CREATE ROLE nobody_special; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT SELECT ON database_identity TO nobody_special`)
	err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `SET LOCAL ROLE nobody_special; SELECT pg_walfile_name(pg_current_wal_flush_lsn()), system_identifier FROM pg_control_system()`)
		return err
	})
	if err != nil {
		t.Errorf("as nobody special: %v", err)
	}
	exec(`DELETE FROM database_identity`)
	ask(http.MethodGet, "/facts/identity", "", 500)
}
