package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/embedded"
)

// parentEnv makes this test binary a program that starts a server in the directory it names and waits to be killed.
const parentEnv = "EMBEDDED_TEST_PARENT"

func TestMain(m *testing.M) {
	if kind, dir, ok := strings.Cut(os.Getenv(parentEnv), ":"); ok {
		parents[kind](dir)
	}
	os.Exit(m.Run())
}

// quick makes servers that do not wait for the disk.
var quick = map[string]string{"fsync": "off"}

func TestPostgresKeepsItsDataAndAddress(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cfg := embedded.PostgresConfig{Dir: serverDir(t), Settings: quick}
	srv := startPostgres(ctx, t, cfg)
	url, err := srv.Database(ctx, "order")
	if err != nil {
		t.Fatal(err)
	}
	exec1(ctx, t, url, "CREATE TABLE t AS SELECT 7 AS n")
	if owner := stat(t, filepath.Join(cfg.Dir, "data")).Uid; owner == 0 {
		t.Error("the server's data belong to root")
	}
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}

	cfg.Port = srv.Port()
	srv = startPostgres(ctx, t, cfg)
	again, err := srv.Database(ctx, "order")
	if err != nil {
		t.Fatal(err)
	}
	if again != url {
		t.Errorf("the URL became %s, was %s", again, url)
	}
	exec1(ctx, t, again, "INSERT INTO t SELECT n FROM t")
}

func TestPostgresPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, err = embedded.Postgres(deadline(t), embedded.PostgresConfig{Port: port})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), strconv.Itoa(port)) {
		t.Errorf("got %v, want an error that names port %d", err, port)
	}
}

func TestPostgresNothingToFetch(t *testing.T) {
	t.Parallel()
	repository := httptest.NewServer(http.NotFoundHandler())
	defer repository.Close()
	_, err := embedded.Postgres(deadline(t), embedded.PostgresConfig{Cache: serverDir(t), Repository: repository.URL})
	if err == nil {
		t.Fatal("a server without binaries started")
	}
	for _, want := range []string{"404 Not Found", "CONVERGE_MAVEN_REPOSITORY", "_DATABASE_URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// A first start that is given up half way, as by Ctrl-C, does not spoil the directory.
func TestPostgresFirstStartCutOff(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	progress := slog.New(slog.NewTextHandler(writerFunc(func() { cancel() }), nil))
	cfg := embedded.PostgresConfig{Dir: serverDir(t), Settings: quick, Log: progress}
	if _, err := embedded.Postgres(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want the context's error", err)
	}
	cfg.Log = nil
	exec1(t.Context(), t, startPostgres(deadline(t), t, cfg).URL("postgres"), "SELECT 1")
}

// Nothing stops the server of a program that is killed but its supervisor.
func TestPostgresEndsWithItsParent(t *testing.T) {
	t.Parallel()
	dir := serverDir(t)
	addr := killParent(t, "postgres", dir)
	for ctx := deadline(t); ; {
		conn, err := net.Dial("tcp4", addr)
		if err != nil {
			break
		}
		conn.Close()
		if ctx.Err() != nil {
			t.Fatal("the server outlived its parent")
		}
	}
	ctx := deadline(t)
	exec1(ctx, t, startPostgres(ctx, t, embedded.PostgresConfig{Dir: dir}).URL("postgres"), "SELECT 1")
}

// A server whose supervisor was killed keeps running. The next start in its directory stops it first.
func TestPostgresSupervisorKilled(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cfg := embedded.PostgresConfig{Dir: serverDir(t), Settings: quick}
	srv := startPostgres(ctx, t, cfg)
	exec1(ctx, t, srv.URL("postgres"), "CREATE TABLE t (n int)")
	if err := syscall.Kill(srv.Supervisor(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := srv.Stop(); err == nil {
		t.Error("no error from stopping a server whose supervisor was killed")
	}

	cfg.Port = srv.Port()
	exec1(ctx, t, startPostgres(ctx, t, cfg).URL("postgres"), "INSERT INTO t VALUES (1)")
}

func TestPostgresStalePid(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	cfg := embedded.PostgresConfig{Dir: serverDir(t), Settings: quick}
	if err := startPostgres(ctx, t, cfg).Stop(); err != nil {
		t.Fatal(err)
	}
	// After a crash of the machine, the pid can be anybody's: here it is this test's.
	stale := fmt.Sprintf("%d\n%s\n1\n1\n\n127.0.0.1\n", os.Getpid(), filepath.Join(cfg.Dir, "data"))
	if err := os.WriteFile(filepath.Join(cfg.Dir, "data", "postmaster.pid"), []byte(stale), 0o644); err != nil {
		t.Fatal(err)
	}
	exec1(ctx, t, startPostgres(ctx, t, cfg).URL("postgres"), "SELECT 1")
}

// Root's server must run as another user, who may not go below a directory that is root's alone.
func TestPostgresBelowClosedDirectory(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	dir := filepath.Join(t.TempDir(), "closed", "postgres")
	if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := embedded.PostgresConfig{Dir: dir, Settings: quick}
	for _, q := range []string{"CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)"} {
		srv := startPostgres(ctx, t, cfg)
		exec1(ctx, t, srv.URL("postgres"), q)
		if err := srv.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	if other, err := os.Readlink(dir); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(other) })
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	exec1(ctx, t, startPostgres(ctx, t, cfg).URL("postgres"), "CREATE TABLE t (n int)") // forgotten
}

// startPostgres starts a server that ends with the test.
func startPostgres(ctx context.Context, t testing.TB, cfg embedded.PostgresConfig) *embedded.PostgresServer {
	t.Helper()
	srv, err := embedded.Postgres(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop() })
	return srv
}

// exec1 runs a statement on a connection of its own.
func exec1(ctx context.Context, t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// parents are the programs that killParent runs: each starts a server in a directory and prints its address.
var parents = map[string]func(dir string){
	"postgres": func(dir string) {
		srv, err := embedded.Postgres(context.Background(), embedded.PostgresConfig{Dir: dir})
		if err != nil {
			panic(err)
		}
		fmt.Printf("127.0.0.1:%d\n", srv.Port())
		select {}
	},
	"kafka": kafkaParent,
}

// killParent starts a program of parents, waits until it has an address, and kills it.
func killParent(t *testing.T, kind, dir string) (addr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), parentEnv+"="+kind+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatalf("the parent program said %q: %v", line, err)
	}
	return strings.TrimSpace(line)
}

// serverDir is a directory for a server, which another user may reach, as root's server must.
func serverDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "embedded-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "server")
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func stat(t testing.TB, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// writerFunc calls a function at every write.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}
