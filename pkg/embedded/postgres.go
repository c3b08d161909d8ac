package embedded

import (
	"bufio"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresVersion is the server that [Postgres] runs.
const PostgresVersion = "18.4.0"

// stopTimeout is how long a supervisor may take to stop its server before it is killed.
const stopTimeout = time.Minute

// PostgresConfig says where a server keeps its data and how it runs. The zero value is a server on a free port with a
// temporary directory.
type PostgresConfig struct {
	// Dir holds the data directory, the server's log and its password, and is created if missing. One server at a time
	// may use it. Empty means a temporary directory that goes away with the server. When this process is root and the
	// unprivileged user cannot reach Dir (it is below /root, say), Dir becomes a link to a directory that it can reach.
	Dir string
	// Port on 127.0.0.1; 0 means a free one.
	Port int
	// Settings are PostgreSQL's own, such as max_connections, over the defaults of the server.
	Settings map[string]string
	// Repository is the Maven repository the server's binaries come from when they are not in the cache yet. Empty means
	// the environment's CONVERGE_MAVEN_REPOSITORY, or else Maven Central.
	Repository string
	// Log hears of what takes long (the first start downloads about 15 MB and makes a data directory) and of a
	// server that could not be stopped. Nil means silence.
	Log *slog.Logger
}

// PostgresServer is a running server. Its methods may be called from several goroutines.
type PostgresServer struct {
	port     int
	password string
	stdin    io.Closer     // open for as long as the server shall run
	exited   chan struct{} // closed when the supervisor is gone
	exitErr  error         // how it went; read after exited
	process  *os.Process
}

// Postgres starts a server and returns when it accepts connections. When ctx ends before that, the start is undone and
// ctx's error returned; afterwards ctx has no effect and [PostgresServer.Stop] ends the server. A taken port is an error
// that names it and satisfies errors.Is(err, syscall.EADDRINUSE).
func Postgres(ctx context.Context, cfg PostgresConfig) (*PostgresServer, error) {
	log := cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	for attempt := 1; ; attempt++ {
		place, err := preparePlace(cfg.Dir, log)
		if err != nil {
			return nil, fmt.Errorf("start embedded PostgreSQL: %w", err)
		}
		srv, err := startPostgres(ctx, cfg, place, log)
		if err == nil {
			return srv, nil
		}
		place.discard()
		// A free port can be taken by another process between the choice and the start.
		if errors.Is(err, syscall.EADDRINUSE) && cfg.Port == 0 && attempt < 5 {
			continue
		}
		return nil, fmt.Errorf("start embedded PostgreSQL: %w", err)
	}
}

func startPostgres(ctx context.Context, cfg PostgresConfig, place place, log *slog.Logger) (*PostgresServer, error) {
	port, err := freePort(cfg.Port)
	if err != nil {
		return nil, err
	}
	password, err := place.password()
	if err != nil {
		return nil, err
	}
	job, err := json.Marshal(job{
		Dir:        place.dir,
		Temporary:  place.temporary,
		Cache:      place.cache,
		Port:       port,
		Password:   password,
		Settings:   cfg.Settings,
		Repository: cmp.Or(cfg.Repository, os.Getenv(repositoryEnv), mavenCentral),
	})
	if err != nil {
		return nil, err
	}

	self := "/proc/self/exe" // works where the path does not: go test's binaries lie in a directory of the user's own
	if runtime.GOOS != "linux" {
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(self)
	cmd.Args = []string{"embedded-postgres"}
	cmd.Env = append(os.Environ(), supervisorEnv+"=1")
	cmd.Dir = place.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: place.credential}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr := &tail{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}

	srv := &PostgresServer{port: port, password: password, stdin: stdin, exited: make(chan struct{}), process: cmd.Process}
	ready := make(chan error, 1)
	go func() { // ends with the supervisor
		defer close(srv.exited)
		ready <- listen(stdout, log)
		srv.exitErr = cmd.Wait()
	}()
	if _, err := stdin.Write(append(job, '\n')); err != nil {
		_ = srv.Stop()
		return nil, fmt.Errorf("start the supervisor: %w%s", err, stderr)
	}
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		_ = srv.Stop()
		return nil, fmt.Errorf("%w%s", err, stderr)
	}
	return srv, nil
}

// listen reads the supervisor's reports up to the one that says how the start went.
func listen(r io.Reader, log *slog.Logger) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var rep report
		if err := json.Unmarshal(lines.Bytes(), &rep); err != nil {
			return fmt.Errorf("supervisor said %q: %w", lines.Text(), err)
		}
		switch {
		case rep.PortTaken:
			return fmt.Errorf("%s: %w", rep.Error, syscall.EADDRINUSE)
		case rep.Error != "":
			return errors.New(rep.Error)
		case rep.Ready:
			return nil
		}
		log.Info(rep.Progress)
	}
	return errors.New("the supervisor ended before the server was ready")
}

// Port is the server's port on 127.0.0.1.
func (s *PostgresServer) Port() int { return s.port }

// URL connects to a database as the server's superuser.
func (s *PostgresServer) URL(database string) string { return s.url("postgres", s.password, database) }

func (s *PostgresServer) url(user, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Database makes sure of a database and of a role of the same name that owns it and may use no other, and returns the
// URL that connects to the one as the other. The URL stays the same for as long as the data directory lives.
func (s *PostgresServer) Database(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("make database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	mac := hmac.New(sha256.New, []byte(s.password))
	mac.Write([]byte(name))
	password := hex.EncodeToString(mac.Sum(nil)[:16])

	var haveRole, haveDatabase bool
	const have = `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1), EXISTS (SELECT FROM pg_database WHERE datname = $1)`
	if err := conn.QueryRow(ctx, have, name).Scan(&haveRole, &haveDatabase); err != nil {
		return "", fmt.Errorf("make database %s: %w", name, err)
	}
	id := pgx.Identifier{name}.Sanitize()
	var statements []string
	if !haveRole {
		statements = append(statements, "CREATE ROLE "+id+" LOGIN PASSWORD '"+password+"'")
	}
	if !haveDatabase {
		statements = append(statements, "CREATE DATABASE "+id+" OWNER "+id)
	}
	statements = append(statements, "REVOKE ALL ON DATABASE "+id+" FROM PUBLIC")
	for _, q := range statements {
		if _, err := conn.Exec(ctx, q); err != nil {
			return "", fmt.Errorf("make database %s: %w", name, err)
		}
	}
	return s.url(name, password, name), nil
}

// Stop shuts the server down: sessions are ended, what was committed is on disk. It returns when the process is gone, and
// may be called again.
func (s *PostgresServer) Stop() error {
	_ = s.stdin.Close()
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.process.Kill()
		<-s.exited
	}
	if s.exitErr != nil {
		return fmt.Errorf("stop embedded PostgreSQL: %w", s.exitErr)
	}
	return nil
}

// freePort returns port, or a free one for 0, after making sure that nothing listens there.
func freePort(port int) (int, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("port %d: %w", port, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func newPassword() string { return rand.Text() }

// dirLock is the file a supervisor keeps locked while its server runs.
func dirLock(dir string) string { return filepath.Join(dir, "lock") }
