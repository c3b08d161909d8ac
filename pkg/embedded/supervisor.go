package embedded

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const supervisorEnv = "CONVERGE_EMBEDDED_POSTGRES"

// job is what a supervisor reads from its standard input before anything else. The input's end is the order to stop.
type job struct {
	Dir        string
	Temporary  bool // remove Dir when the server has stopped
	Cache      string
	Port       int
	Settings   map[string]string
	Repository string // empty: Maven Central

	lock     *os.File // on Dir, held until the process ends
	password string   // the superuser's
}

// report is a line of a supervisor's standard output. One with a port or an error is the last.
type report struct {
	Progress  string `json:",omitempty"`
	Port      int    `json:",omitempty"` // where the server accepts connections
	Password  string `json:",omitempty"` // from the superuser
	Error     string `json:",omitempty"`
	PortTaken bool   `json:",omitempty"` // what the error is about
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

// supervise starts the server that the job asks for, and stops it when the input ends or a signal says so.
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
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, input)
		cancel()
	}()
	if j.Temporary {
		defer os.RemoveAll(j.Dir) //nolint:errcheck // a temporary directory
	}

	server, err := j.start(ctx, out)
	if err != nil {
		return out.Encode(report{Error: err.Error(), PortTaken: portTaken(err)})
	}
	_ = out.Encode(report{Port: j.Port, Password: j.password})
	<-ctx.Done()
	return server.Stop()
}

// start brings the server up. When ctx ends it gives up, unless the server's process may exist already: then it waits
// for the start, so that there is something to stop.
func (j *job) start(ctx context.Context, out *json.Encoder) (*embeddedpostgres.EmbeddedPostgres, error) {
	var err error
	if j.lock, err = lock(ctx, filepath.Join(j.Dir, "lock"), lockPatience); err != nil {
		return nil, err
	}
	if err := j.tidy(ctx); err != nil {
		return nil, err
	}
	l, err := listenLoopback(j.Port)
	if err != nil {
		return nil, err
	}
	j.Port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return nil, err
	}

	// The library unpacks the binaries file by file, in place. The lock keeps other processes from using half of them,
	// and the mark tells a finished set from one that a crash cut off.
	complete := j.binaries() + ".complete"
	fetching := false
	if !exists(complete) {
		installing, err := lock(ctx, filepath.Join(j.Cache, "lock"), time.Hour)
		if err != nil {
			return nil, err
		}
		defer installing.Close() //nolint:errcheck // the lock ends with it
		if fetching = !exists(complete); fetching {
			_ = out.Encode(report{Progress: fmt.Sprintf("fetching PostgreSQL %s from %s (about 15 MB, once for all runs)",
				PostgresVersion, redacted(j.Repository))})
			if err := os.RemoveAll(j.binaries()); err != nil {
				return nil, err
			}
		}
	}
	if !exists(j.initialised()) {
		_ = out.Encode(report{Progress: "making a PostgreSQL data directory in " + j.Dir})
	}

	requests := watchRequests()
	server := j.server()
	started := make(chan error, 1)
	go func() { started <- server.Start() }() // waited for below, or ends with the process
	select {
	case err = <-started:
	case <-ctx.Done():
		if !exists(j.binary("pg_ctl")) {
			return nil, ctx.Err() // still fetching
		}
		err = <-started
	}
	if err != nil {
		if fetching && !exists(j.binary("pg_ctl")) {
			err = requests.fetchError(err)
		}
		return nil, err
	}
	for _, mark := range []string{complete, j.initialised()} {
		if err := os.WriteFile(mark, nil, 0o644); err != nil {
			return nil, errors.Join(err, server.Stop())
		}
	}
	return server, nil
}

func (j *job) server() *embeddedpostgres.EmbeddedPostgres {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"max_connections":         "200",
	}
	maps.Copy(settings, j.Settings)
	config := embeddedpostgres.DefaultConfig() // which fetches from Maven Central
	if j.Repository != "" {
		config = config.BinaryRepositoryURL(strings.TrimSuffix(j.Repository, "/"))
	}
	return embeddedpostgres.NewDatabase(config.
		Version(PostgresVersion).
		Port(uint32(j.Port)).
		Username("postgres").Password(j.password).Database("postgres").
		Locale("C").Encoding("UTF8"). // the same on every machine
		CachePath(j.Cache).BinariesPath(j.binaries()).
		RuntimePath(filepath.Join(j.Dir, "run")).DataPath(j.data()).
		StartParameters(settings).
		StartTimeout(time.Minute).
		Logger(nil))
}

func (j *job) data() string { return filepath.Join(j.Dir, "data") }

// initialised marks a data directory whose making was not cut off.
func (j *job) initialised() string { return filepath.Join(j.Dir, "initialised") }

func (j *job) passwordFile() string { return filepath.Join(j.Dir, "password") }

func (j *job) binaries() string {
	return filepath.Join(j.Cache, fmt.Sprintf("postgresql-%s-%s-%s", PostgresVersion, runtime.GOOS, runtime.GOARCH))
}

func (j *job) binary(name string) string { return filepath.Join(j.binaries(), "bin", name) }

// portTaken tells whether a start failed because somebody else listens on the port: before the library looked, when it
// did, or after.
func portTaken(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) ||
		strings.Contains(err.Error(), "process already listening on port") ||
		strings.Contains(err.Error(), "Address already in use")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
