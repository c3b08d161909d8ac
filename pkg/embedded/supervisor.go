package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/jackc/pgx/v5"
)

const (
	supervisorEnv = "CONVERGE_EMBEDDED_POSTGRES"
	repositoryEnv = "CONVERGE_MAVEN_REPOSITORY"
	mavenCentral  = "https://repo1.maven.org/maven2"
)

// job is what a supervisor reads from its standard input before anything else. The input's end is the order to stop.
type job struct {
	Dir        string
	Temporary  bool
	Cache      string
	Port       int
	Password   string
	Settings   map[string]string
	Repository string
}

// report is a line of a supervisor's standard output; Ready or Error is the last.
type report struct {
	Progress  string `json:",omitempty"`
	Ready     bool   `json:",omitempty"`
	Error     string `json:",omitempty"`
	PortTaken bool   `json:",omitempty"`
}

// init turns this process into a supervisor when Postgres started it as one.
func init() {
	if os.Getenv(supervisorEnv) == "" {
		return
	}
	_ = os.Unsetenv(supervisorEnv)
	if err := supervise(os.Stdin, json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// supervise starts the server the job asks for, and stops it when the input ends or a signal says so.
func supervise(in io.Reader, out *json.Encoder) error {
	// Once the parent is gone nobody reads the output; that must not end us before the server is stopped.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()
	input := bufio.NewReader(in)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return nil // the parent is gone already
	}
	var j job
	if err := json.Unmarshal(line, &j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, input)
		cancel()
	}()
	if j.Temporary {
		defer os.RemoveAll(j.Dir)
	}

	server, err := j.start(ctx, out)
	if err != nil {
		return out.Encode(report{Error: err.Error(), PortTaken: portTaken(err)})
	}
	_ = out.Encode(report{Ready: true})
	<-ctx.Done()
	return server.Stop()
}

func (j job) data() string { return filepath.Join(j.Dir, "data") }
func (j job) binaries() string {
	return filepath.Join(j.Cache, "postgresql-"+PostgresVersion+"-"+platform())
}

// start brings the server up. It gives up when ctx ends before the server's process exists; once that may exist, it
// waits for the start, so that there is something to stop.
func (j job) start(ctx context.Context, out *json.Encoder) (*embeddedpostgres.EmbeddedPostgres, error) {
	dirLocked, err := lock(ctx, dirLock(j.Dir), false)
	if err != nil {
		return nil, err
	}
	_ = dirLocked // held until this process ends
	if err := j.tidy(ctx); err != nil {
		return nil, err
	}

	// The library unpacks the binaries file by file, in place. The lock keeps other processes from using half of them, and
	// the mark tells a finished set from one that a crash cut off.
	complete := j.binaries() + ".complete"
	installed := exists(complete)
	if !installed {
		l, err := lock(ctx, filepath.Join(j.Cache, "lock"), true)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		if installed = exists(complete); !installed {
			_ = out.Encode(report{Progress: fmt.Sprintf(
				"fetching PostgreSQL %s from %s: about 15 MB, once on this machine", PostgresVersion, j.Repository)})
			if err := os.RemoveAll(j.binaries()); err != nil {
				return nil, err
			}
		} else {
			l.Close()
		}
	}
	initialised := filepath.Join(j.Dir, "initialised")
	if !exists(initialised) {
		_ = out.Encode(report{Progress: "making a new PostgreSQL data directory in " + j.Dir})
	}

	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"max_connections":         "200",
	}
	maps.Copy(settings, j.Settings)
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(PostgresVersion).
		Port(uint32(j.Port)).
		Username("postgres").Password(j.Password).Database("postgres").
		Locale("C").Encoding("UTF8"). // the same everywhere
		CachePath(j.Cache).BinariesPath(j.binaries()).
		RuntimePath(filepath.Join(j.Dir, "run")).DataPath(j.data()).
		BinaryRepositoryURL(strings.TrimSuffix(j.Repository, "/")).
		StartParameters(settings).
		StartTimeout(time.Minute).
		Logger(nil))

	var requests lastFailure
	http.DefaultClient = &http.Client{Transport: &requests, Timeout: 10 * time.Minute} // the library's, in this process of its own
	started := make(chan error, 1)
	go func() { started <- server.Start() }()
	select {
	case err = <-started:
	case <-ctx.Done():
		if !exists(filepath.Join(j.binaries(), "bin", "pg_ctl")) {
			return nil, ctx.Err() // still fetching: no server process to wait for
		}
		err = <-started
	}
	if err != nil {
		if !installed && !exists(filepath.Join(j.binaries(), "bin", "postgres")) {
			return nil, j.fetchError(err, requests.err)
		}
		return nil, err
	}
	for _, mark := range []string{complete, initialised} {
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return nil, errors.Join(err, server.Stop())
		}
	}
	return server, nil
}

// tidy makes the directory fit to start from, whatever the last run left: a server whose supervisor was killed, a stale
// pid file, an initdb that was cut off.
func (j job) tidy(ctx context.Context) error {
	logs := filepath.Join(j.Dir, "log")
	if err := os.RemoveAll(logs); err != nil {
		return err
	}
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	_ = os.Setenv("TMPDIR", logs) // where the library puts the server's log

	version, err := os.ReadFile(filepath.Join(j.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) || !exists(filepath.Join(j.Dir, "initialised")) {
		return os.RemoveAll(j.data())
	}
	if err != nil {
		return err
	}
	major, _, _ := strings.Cut(PostgresVersion, ".")
	if have := strings.TrimSpace(string(version)); have != major {
		return fmt.Errorf("the data in %s is PostgreSQL %s's, this is PostgreSQL %s: move it away or remove it", j.Dir, have, major)
	}

	pidFile := filepath.Join(j.data(), "postmaster.pid")
	pid, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// The pid may be another process's by now, so ask the server itself whether it is ours.
	if lines := strings.Split(string(pid), "\n"); len(lines) > 3 && j.answersAt(ctx, strings.TrimSpace(lines[3])) {
		stop := exec.CommandContext(ctx, filepath.Join(j.binaries(), "bin", "pg_ctl"), "stop", "-w", "-m", "fast", "-D", j.data())
		if msg, err := stop.CombinedOutput(); err != nil {
			return fmt.Errorf("stop the server that an earlier run left in %s: %w: %s", j.Dir, err, msg)
		}
		return nil
	}
	return os.Remove(pidFile)
}

// answersAt tells whether the server of this data directory listens on the port.
func (j job) answersAt(ctx context.Context, port string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%s/postgres?sslmode=disable", j.Password, port)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return false
	}
	defer conn.Close(ctx)
	var dir string
	return conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir) == nil && dir == j.data()
}
