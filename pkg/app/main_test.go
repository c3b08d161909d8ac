package app_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// TestMain runs the tests, or, in a process that the tests of Main start, behaves as told.
func TestMain(m *testing.M) {
	if behaviour := os.Getenv("APP_TEST_RUN"); behaviour != "" {
		mainProcess(behaviour)
	}
	pgtest.Main(m)
}

func mainProcess(behaviour string) {
	os.Args = append(os.Args[:1], strings.Fields(os.Getenv("APP_TEST_ARGS"))...)
	app.Main(func(ctx context.Context, getenv func(string) string) error {
		s := app.NewSettings(getenv)
		addr := s.Addr("TEST_ADDR", "127.0.0.1:1", "where it listens")
		if done, err := app.Intercept(ctx, s, addr); done {
			return err
		}
		fmt.Println("running")
		switch behaviour {
		case "limit":
			return fmt.Errorf("memory limit %d MiB", debug.SetMemoryLimit(-1)>>20)
		case "fail":
			return errors.New("no luck")
		case "hang":
			<-ctx.Done()
			fmt.Println("stopping")
			select {}
		default:
			<-ctx.Done()
			return ctx.Err()
		}
	})
}

func command(t *testing.T, behaviour, args string, environ ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "APP_TEST_RUN="+behaviour, "APP_TEST_ARGS="+args)
	cmd.Env = append(cmd.Env, environ...)
	return cmd
}

func TestMainExits(t *testing.T) {
	t.Parallel()
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(ready.Close)
	for _, tt := range []struct {
		name, behaviour, args, addr string
		code                        int
		out                         string
	}{
		{"error", "fail", "", "", 1, `"msg":"failed"`},
		{"unknown argument", "serve", "start", "", 2, `unknown argument "start"`},
		{"help", "serve", "-h", "", 0, "TEST_ADDR  127.0.0.1:1  where it listens"},
		{"healthy", "serve", "healthcheck", ready.Listener.Addr().String(), 0, ""},
		{"not healthy", "serve", "healthcheck", "", 1, "connection refused"},
		{"health of a wrong address", "serve", "healthcheck", "nowhere", 1, "TEST_ADDR is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := command(t, tt.behaviour, tt.args, "TEST_ADDR="+tt.addr)
			out, err := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d (%v), want %d; output:\n%s", code, err, tt.code, out)
			}
			if !strings.Contains(string(out), tt.out) {
				t.Errorf("output lacks %q:\n%s", tt.out, out)
			}
		})
	}
}

// A backlog that a service works off must not make it large; whoever runs it may decide otherwise.
func TestMainLimitsMemory(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{"GOMEMLIMIT=": "memory limit 100 MiB", "GOMEMLIMIT=70MiB": "memory limit 70 MiB"} {
		out, err := command(t, "limit", "", env).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("with %q: %v\n%s", env, err, out)
		}
	}
}

func TestMainStopsOnSignal(t *testing.T) {
	t.Parallel()
	t.Run("gracefully on the first", func(t *testing.T) {
		t.Parallel()
		for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
			cmd, lines := start(t, "serve")
			await(t, lines, "running")
			signalTo(t, cmd, sig)
			if err := cmd.Wait(); err != nil {
				t.Errorf("after %v: %v", sig, err)
			}
		}
	})
	t.Run("at once on the second", func(t *testing.T) {
		t.Parallel()
		cmd, lines := start(t, "hang")
		await(t, lines, "running")
		signalTo(t, cmd, syscall.SIGINT)
		await(t, lines, "stopping")
		// The handler is taken down beside the run that is told to stop, so the second may have to be sent again.
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case err := <-done:
				if err == nil {
					t.Error("a process that was killed exited with 0")
				}
				tick.Stop()
				return
			case <-tick.C:
				_ = cmd.Process.Signal(syscall.SIGINT) // it may just have ended
			}
		}
	})
}

func start(t *testing.T, behaviour string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := command(t, behaviour, "")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func await(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	for lines.Scan() {
		if lines.Text() == want {
			return
		}
	}
	t.Fatalf("the process ended before it printed %q: %v", want, lines.Err())
}

func signalTo(t *testing.T, cmd *exec.Cmd, sig os.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

func TestHealthcheck(t *testing.T) {
	t.Parallel()
	status := make(chan int, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(<-status)
		_, _ = io.WriteString(w, "database is not ready")
	}))
	t.Cleanup(srv.Close)
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")

	for _, addr := range []string{"127.0.0.1:" + port, ":" + port, "0.0.0.0:" + port, "[::]:" + port} {
		status <- http.StatusOK
		if err := app.Healthcheck(t.Context(), addr); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	status <- http.StatusServiceUnavailable
	err := app.Healthcheck(t.Context(), "127.0.0.1:"+port)
	if err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: database is not ready") {
		t.Errorf("error is %v, want the status and the reason", err)
	}
}
