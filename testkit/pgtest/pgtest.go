// Package pgtest gives a test a PostgreSQL 18 database of its own: on a container where Docker answers, on an embedded
// server elsewhere. The environment variable CONVERGE_TEST_SERVERS chooses ("docker" or "embedded"); with "docker" and
// no Docker the tests fail.
//
// All tests of a package share one server, which starts on first use and ends with [Main]:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestReserve(t *testing.T) {
//		t.Parallel()
//		db := pgtest.New(t, "inventory", migrate)
//		...
//	}
//
// The servers are fast, not durable: they never wait for the disk. A test that stops the server or kills it takes one
// of its own, with [NewServer].
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/internal/testserver"
)

// Main runs a package's tests, ends the servers they started (brokertest's too), and exits.
func Main(m *testing.M) { testserver.Main(m) }

// Migrate makes a schema in an empty database.
type Migrate func(context.Context, *pgxpool.Pool) error

// New is a fresh database with migrate's schema, connected to as its owner, a superuser. It is gone when the test is
// done. Tests that give the same key share one run of migrate: the database is a copy of the one that it made. A nil
// migrate means an empty database.
func New(t testing.TB, key string, migrate Migrate) *pgxpool.Pool {
	t.Helper()
	return open(t, shared(t).create(t, key, migrate))
}

// URL is what connects to a fresh, empty database, for a test that runs a whole service, which migrates it itself.
func URL(t testing.TB) string {
	t.Helper()
	return shared(t).create(t, "", nil)
}

// open connects a pool that is closed, with the test failing if it still lent out connections, before the database
// goes.
func open(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatalf("open a test database: %v", err)
	}
	cfg.MaxConns = 10 // as many on any machine
	pg.Configure(cfg)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		t.Fatalf("open a test database: %v", err)
	}
	t.Cleanup(func() {
		if err := closePool(pool); err != nil {
			t.Error(err)
		}
	})
	return pool
}

// closePool closes a pool. It does not wait for ever for connections that are not given back.
func closePool(pool *pgxpool.Pool) error {
	closed := make(chan struct{})
	go func() { // ends with the process if a connection is not given back
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%d connections of the test database were not given back", pool.Stat().AcquiredConns())
	}
}

// The server that all tests of a binary share.
var binary struct {
	mu     sync.Mutex
	server *Server // set with the first start, however it went
	err    error
}

// shared starts the binary's server if no test did yet.
func shared(t testing.TB) *Server {
	t.Helper()
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if binary.server == nil {
		docker, s := testserver.Docker(t), &Server{}
		testserver.AtExit(t, s.remove)
		binary.server, binary.err = s, s.launch(t.Context(), docker)
	}
	if binary.err != nil {
		t.Fatalf("start the test database server: %v", binary.err)
	}
	testserver.Announce("pgtest", binary.server.Name)
	return binary.server
}

// create makes a database, which is dropped when the test is done.
func (s *Server) create(t testing.TB, key string, migrate Migrate) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text()[:12])
	from := "template1"
	if migrate != nil {
		var err error
		if from, err = s.template(t.Context(), key, migrate); err != nil {
			t.Fatalf("make the schema %q: %v", key, err)
		}
	}
	if err := s.exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE "+from); err != nil {
		t.Fatalf("create a test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	return s.URL(name)
}

// template makes a schema the first time that its key is asked for, and returns the database that has it.
func (s *Server) template(ctx context.Context, key string, migrate Migrate) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.templates[key]; ok {
		return name, nil
	}
	name := fmt.Sprintf("template_%d", len(s.templates)+2)
	if err := s.exec(ctx, "DROP DATABASE IF EXISTS "+name); err != nil { // of a migrate that failed
		return "", err
	}
	if err := s.exec(ctx, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	pool, err := pgxpool.New(ctx, s.URL(name))
	if err != nil {
		return "", err
	}
	if err := errors.Join(migrate(ctx, pool), closePool(pool)); err != nil {
		return "", err
	}
	if s.templates == nil {
		s.templates = map[string]string{}
	}
	s.templates[key] = name
	return name, nil
}

func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // its work is done
	_, err = conn.Exec(ctx, sql)
	return err
}
