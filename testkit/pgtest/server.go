package pgtest

import (
	"context"
	"errors"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/embedded"
	"github.com/converge-dev/converge/testkit/internal/testserver"
)

const (
	image    = "postgres:18"
	password = "converge"
)

// settings make a server that is as fast as memory, and loses its data if the machine crashes.
func settings() map[string]string {
	return map[string]string{
		"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "500",
	}
}

// Server is a PostgreSQL server of a test's own, to stop and start under the code that uses it. It keeps its address
// and its data when it does.
type Server struct {
	Name string // what it is, such as "postgres:18 in Docker"

	mu        sync.Mutex // guards templates, and the making of one
	templates map[string]string

	container *testserver.Container // in Docker
	embedded  *embedded.PostgresServer
	dir       string // of an embedded server that is to keep its data
}

// NewServer starts a server that ends with the test.
func NewServer(t testing.TB) *Server {
	t.Helper()
	docker := testserver.Docker(t)
	s := &Server{}
	t.Cleanup(func() {
		if err := s.remove(context.Background()); err != nil {
			t.Errorf("remove a PostgreSQL server: %v", err)
		}
	})
	var err error
	if !docker {
		s.dir, err = os.MkdirTemp("", "converge-pgtest-")
	}
	if err == nil {
		err = s.launch(t.Context(), docker)
	}
	if err != nil {
		t.Fatalf("start a PostgreSQL server: %v", err)
	}
	return s
}

// URL connects to a database of the server as superuser. The database "postgres" is always there.
func (s *Server) URL(database string) string {
	if s.container == nil {
		return s.embedded.URL(database)
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("postgres", password), Host: s.container.Addr,
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop shuts the server down; sessions are cut off.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop(t.Context()); err != nil {
		t.Fatalf("stop PostgreSQL: %v", err)
	}
}

// Start starts the stopped server and waits until it accepts connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(t.Context()); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// launch makes the server and waits until it accepts connections. It may have to be removed even after an error.
func (s *Server) launch(ctx context.Context, docker bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if !docker {
		s.Name = "embedded PostgreSQL " + embedded.PostgresVersion
		return s.start(ctx)
	}

	s.Name = image + " in Docker"
	cmd := []string{"postgres"}
	for name, value := range settings() {
		cmd = append(cmd, "-c", name+"="+value)
	}
	container, err := testserver.Run(ctx, testserver.Spec{
		Image: image, Port: "5432/tcp", Cmd: cmd,
		Env: map[string]string{"POSTGRES_PASSWORD": password, "POSTGRES_INITDB_ARGS": "--locale=C --encoding=UTF8"},
	})
	if err != nil {
		return err
	}
	s.container = container
	return s.wait(ctx)
}

func (s *Server) start(ctx context.Context) error {
	if s.container != nil {
		if err := s.container.Start(ctx); err != nil {
			return err
		}
		return s.wait(ctx)
	}
	cfg := embedded.PostgresConfig{Dir: s.dir, Settings: settings()}
	if s.embedded != nil {
		cfg.Port = s.embedded.Port()
	}
	srv, err := embedded.Postgres(ctx, cfg)
	if err == nil {
		s.embedded = srv
	}
	return err
}

func (s *Server) stop(ctx context.Context) error {
	if s.container != nil {
		return s.container.Stop(ctx)
	}
	return s.embedded.Stop()
}

// remove ends the server and forgets its data.
func (s *Server) remove(ctx context.Context) error {
	if s.container != nil {
		return s.container.Terminate(ctx)
	}
	var err error
	if s.embedded != nil {
		err = s.embedded.Stop()
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// wait returns when a container's server accepts connections. The image's first start runs one without TCP for its
// set-up, so a connection is the proof, not a line in the log.
func (s *Server) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return s.container.Await(ctx, func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
}
