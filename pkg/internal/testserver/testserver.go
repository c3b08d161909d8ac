// Package testserver is what the test kits share: the choice between containers and embedded servers, the servers' end
// when the tests are done, and containers on an address that survives a restart.
package testserver

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
)

// Env names the environment variable that chooses the servers of a test run: "docker", "embedded", or nothing for
// Docker where it answers and embedded servers elsewhere.
const Env = "CONVERGE_TEST_SERVERS"

// A test binary has one set of shared servers, and Main ends them, so this state is the process's.
var binary struct {
	mu      sync.Mutex
	inMain  bool
	cleanup []func(context.Context) error
}

// Main runs the tests, ends every server that was started for them, and exits. An interrupt ends the servers too.
func Main(m *testing.M) {
	binary.mu.Lock()
	binary.inMain = true
	binary.mu.Unlock()

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, syscall.SIGINT, syscall.SIGTERM)
	go func() { // ends with the process
		<-interrupted
		cleanup()
		os.Exit(1)
	}()
	code := m.Run()
	if !cleanup() && code == 0 {
		code = 1
	}
	os.Exit(code)
}

// AtExit has Main call stop when the tests are done, last one first. The test fails if nothing calls Main, for then the
// server would outlive the tests.
func AtExit(t testing.TB, stop func(context.Context) error) {
	t.Helper()
	binary.mu.Lock()
	defer binary.mu.Unlock()
	if !binary.inMain {
		t.Fatal("this package's tests share servers; end them: func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	binary.cleanup = append(binary.cleanup, stop)
}

// cleanup runs what AtExit was given, once, and tells whether all went well.
func cleanup() bool {
	binary.mu.Lock()
	defer binary.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ok := true
	for len(binary.cleanup) > 0 {
		last := len(binary.cleanup) - 1
		if err := binary.cleanup[last](ctx); err != nil {
			fmt.Fprintln(os.Stderr, "stop a test server:", err)
			ok = false
		}
		binary.cleanup = binary.cleanup[:last]
	}
	return ok
}

// Docker tells whether this run's servers are containers. It fails the test when they must be and Docker does not answer.
func Docker(t testing.TB) bool {
	t.Helper()
	docker, err := choose()
	if err != nil {
		t.Fatal(err)
	}
	return docker
}

// choose decides once per process.
var choose = sync.OnceValues(func() (bool, error) {
	switch choice := os.Getenv(Env); choice {
	case "embedded":
		return false, nil
	case "docker":
		if err := ping(20 * time.Second); err != nil {
			return false, fmt.Errorf("%s=docker, but Docker does not answer: %w", Env, err)
		}
		return true, nil
	case "":
		return ping(2*time.Second) == nil, nil
	default:
		return false, fmt.Errorf("%s=%s: want docker, embedded or nothing", Env, choice)
	}
})

// ping asks the Docker engine for a sign of life.
func ping(timeout time.Duration) error {
	result := make(chan error, 1)
	go func() { // may outlive the time-out when the engine hangs, and then ends with the process
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		provider, err := testcontainers.NewDockerProvider()
		if err != nil {
			result <- err
			return
		}
		defer provider.Close()
		result <- provider.Health(ctx)
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(timeout):
		return fmt.Errorf("no answer within %s", timeout)
	}
}

// Announce says once per process which servers the tests run on.
func Announce(kit, server string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", kit, server)
}
