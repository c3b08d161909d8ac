// Package testserver is what the test kits share: the choice between containers and embedded servers, the servers' end
// when the tests are done, and containers whose address survives a restart.
package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Env names the environment variable that chooses the servers of a test run: "docker", "embedded", or nothing for
// Docker where it answers and embedded servers elsewhere.
const Env = "CONVERGE_TEST_SERVERS"

// A test binary has one set of shared servers, which Main ends, so this state is the process's.
var binary struct {
	mu        sync.Mutex
	main      bool // Main runs the tests
	cleanup   []func(context.Context) error
	keeper    func() error // ends what holds the containers, if it was started
	announced map[string]bool
}

// Main runs the tests, ends every server that was started for them, and exits. An interrupt ends the servers too.
func Main(m *testing.M) {
	binary.mu.Lock()
	binary.main = true
	binary.mu.Unlock()

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() { // ends with the process
		<-interrupted
		cleanup()
		os.Exit(1)
	}()
	code := m.Run()
	if !cleanup() {
		code = max(code, 1)
	}
	os.Exit(code)
}

// AtExit has Main call stop when the tests are done. The test fails if nothing calls Main, for then the server that it
// is about to start would outlive the tests.
func AtExit(t testing.TB, stop func(context.Context) error) {
	t.Helper()
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if !binary.main {
		t.Fatal("the tests of this package share servers, which need: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	binary.cleanup = append(binary.cleanup, stop)
}

// cleanup runs what AtExit was given, the last one first, and tells whether all went well.
func cleanup() bool {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ok := true
	for ; len(binary.cleanup) > 0; binary.cleanup = binary.cleanup[:len(binary.cleanup)-1] {
		if err := binary.cleanup[len(binary.cleanup)-1](ctx); err != nil {
			fmt.Fprintln(os.Stderr, "stop a test server:", err)
			ok = false
		}
	}
	if binary.keeper != nil {
		if err := binary.keeper(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the tests' containers:", err)
			ok = false
		}
		binary.keeper = nil
	}
	return ok
}

// Announce says, once per process, which servers the tests run on.
func Announce(kit, server string) {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	line := kit + ": " + server
	if binary.announced[line] {
		return
	}
	if binary.announced == nil {
		binary.announced = map[string]bool{}
	}
	binary.announced[line] = true
	fmt.Fprintln(os.Stderr, line)
}

// Docker tells whether this run's servers are containers. It fails the test when they must be and Docker does not
// answer.
func Docker(t testing.TB) bool {
	t.Helper()
	docker, err := choose()
	if err != nil {
		t.Fatal(err)
	}
	return docker
}

// choose decides, once per process.
var choose = sync.OnceValues(func() (docker bool, err error) {
	return decide(os.Getenv(Env), func(timeout time.Duration) error {
		return errors.Join(ping(timeout), keeperStarts())
	})
})

// decide chooses containers where they can be had, or must be.
func decide(choice string, can func(timeout time.Duration) error) (docker bool, err error) {
	switch choice {
	case "embedded":
		return false, nil
	case "docker":
		if err := can(20 * time.Second); err != nil {
			return false, fmt.Errorf("%s=docker, but there are no containers: %w", Env, err)
		}
		return true, nil
	case "":
		return can(2*time.Second) == nil, nil
	default:
		return false, fmt.Errorf("%s=%s: want docker, embedded or nothing", Env, choice)
	}
}

// ping asks the Docker engine for a sign of life.
func ping(timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", "info", "--format", "{{.ServerVersion}}")
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("docker info: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
