package embedded

import (
	"bufio"
	"cmp"
	"context"
	"crypto/hmac"
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
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// PostgresVersion is the server that [Postgres] runs.
const PostgresVersion = "18.4.0"

// stopTimeout is how long a supervisor may take before it is killed: longer than it waits for its server to stop.
const stopTimeout = 75 * time.Second

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
	// Cache holds the server's binaries, for all servers of this user. Empty means the user's cache directory, or
	// /var/cache/converge for root, whose own is closed to the user the server runs as.
	Cache string
	// Repository is the Maven repository the server's binaries come from when they are not in the cache yet. Empty
	// means the environment's CONVERGE_MAVEN_REPOSITORY, or else Maven Central.
	Repository string
	// Log hears of what takes long: the first start downloads about 15 MB and makes a data directory. Nil means
	// silence.
	Log *slog.Logger
}

// PostgresServer is a running server. Its methods may be called from several goroutines.
type PostgresServer struct {
	port       int
	password   string
	supervisor *os.Process
	stdin      io.Closer     // open for as long as the server shall run
	exited     chan struct{} // closed when the supervisor is gone
	exitErr    error         // how it went; read after exited
}

// Postgres starts a server and returns when it accepts connections. When ctx ends before that, the start is undone and
// ctx's error returned; afterwards ctx has no effect and [PostgresServer.Stop] ends the server. A taken port is an
// error that names it and satisfies errors.Is(err, syscall.EADDRINUSE).
func Postgres(ctx context.Context, cfg PostgresConfig) (*PostgresServer, error) {
	for attempt := 1; ; attempt++ {
		srv, err := startPostgres(ctx, cfg)
		if err == nil {
			return srv, nil
		}
		// Another process can take a port that was free when the supervisor looked.
		if cfg.Port == 0 && errors.Is(err, syscall.EADDRINUSE) && attempt < 5 {
			continue
		}
		return nil, fmt.Errorf("start embedded PostgreSQL: %w", err)
	}
}

func startPostgres(ctx context.Context, cfg PostgresConfig) (*PostgresServer, error) {
	log := cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	place, err := preparePlace(cfg, log)
	if err != nil {
		return nil, err
	}
	job, err := json.Marshal(job{
		Dir:        place.dir,
		Temporary:  cfg.Dir == "",
		Cache:      place.cache,
		Port:       cfg.Port,
		Settings:   cfg.Settings,
		Repository: cmp.Or(cfg.Repository, os.Getenv(repositoryEnv)),
	})
	if err != nil {
		return nil, err
	}

	self := "/proc/self/exe" // unlike its path, open to another user: go test's binaries lie in a closed directory
	if runtime.GOOS != "linux" {
		if self, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(self) //nolint:noctx // Stop ends it, not a context
	cmd.Args = []string{"embedded-postgres"}
	cmd.Env = append(os.Environ(), supervisorEnv+"=1")
	cmd.Dir = place.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: place.credential}
	stderr := &tail{}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		if cfg.Dir == "" {
			_ = os.RemoveAll(place.dir)
		}
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}

	srv := &PostgresServer{supervisor: cmd.Process, stdin: stdin, exited: make(chan struct{})}
	last := make(chan report, 1)
	go func() { // ends with the supervisor
		defer close(srv.exited)
		last <- listen(stdout, log)
		srv.exitErr = cmd.Wait()
	}()
	_, _ = stdin.Write(append(job, '\n')) // if this fails, the supervisor is gone, and listen says so
	select {
	case rep := <-last:
		switch {
		case rep.Port != 0:
			srv.port, srv.password = rep.Port, rep.Password
			return srv, nil
		case rep.PortTaken:
			err = fmt.Errorf("%s (%w)", rep.Error, syscall.EADDRINUSE)
		default:
			err = errors.New(rep.Error)
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = srv.Stop()
	return nil, fmt.Errorf("%w%s", err, stderr)
}

// listen passes the supervisor's progress on to the log and returns its last report.
func listen(r io.Reader, log *slog.Logger) report {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var rep report
		if err := json.Unmarshal(lines.Bytes(), &rep); err != nil {
			return report{Error: fmt.Sprintf("the supervisor said %q: %v", lines.Text(), err)}
		}
		if rep.Progress == "" {
			return rep
		}
		log.Info(rep.Progress)
	}
	return report{Error: "the supervisor ended before the server was ready"}
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

// Database makes sure of a database and of a role of the same name, which owns it and alone (but for the superuser) may
// use it, and returns the URL that connects to the one as the other. The URL stays the same for as long as the data
// directory lives and the port does not change.
func (s *PostgresServer) Database(ctx context.Context, name string) (string, error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return "", fmt.Errorf("make database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // its work is done
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

// Stop shuts the server down: sessions are ended, what was committed is on disk. It returns when the process is gone,
// and may be called again.
func (s *PostgresServer) Stop() error {
	_ = s.stdin.Close()
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.supervisor.Kill()
		<-s.exited
	}
	if s.exitErr != nil {
		return fmt.Errorf("stop embedded PostgreSQL: %w", s.exitErr)
	}
	return nil
}
