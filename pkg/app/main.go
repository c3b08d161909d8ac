package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"
)

// Main runs a service's Run as the whole of a process, and exits with its result: 0 when it ended well, 1 with one log
// line when it failed, 2 for arguments it does not know.
//
// Memory is collected seldom up to memoryLimit and hard above it; GOGC and GOMEMLIMIT, if set, decide instead.
//
// SIGINT and SIGTERM cancel the context, upon which run is to stop gracefully; a second signal ends the process at
// once.
//
// The binary serves when it is given no arguments. "healthcheck" asks the service that runs at the same settings
// whether it is ready, so that a container without a shell can check its health, and "-h" prints every setting; both
// are answered by [Intercept], which the service's start-up calls once its settings are read.
func Main(run func(ctx context.Context, getenv func(string) string) error) {
	if os.Getenv("GOGC") == "" { // a few MiB live here: collecting whenever that has doubled costs a tenth of the CPU under load
		debug.SetGCPercent(400)
	}
	if os.Getenv("GOMEMLIMIT") == "" { // a backlog makes them many: from here on memory is worth more than that tenth
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // from the first signal on, the next has its default effect
	code := execute(ctx, os.Args, os.Getenv, os.Stdout, os.Stderr, run)
	stop()
	os.Exit(code)
}

// memoryLimit leaves a service room below the 150 MiB that it promises to stay under.
const memoryLimit = 100 << 20

func execute(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer,
	run func(context.Context, func(string) string) error,
) int {
	name := filepath.Base(args[0])
	mode := ""
	if len(args) > 1 {
		mode = args[1]
	}
	switch mode {
	case "":
	case "healthcheck":
		ctx = context.WithValue(ctx, commandKey{}, command{mode: modeHealthcheck})
	case "-h", "-help", "--help", "help":
		ctx = context.WithValue(ctx, commandKey{}, command{mode: modeHelp, out: stdout})
		fmt.Fprintf(stdout, "usage: %s [healthcheck | -h]\n\nSettings, read from the environment:\n", name)
	default:
		fmt.Fprintf(stderr, "%s: unknown argument %q\nusage: %s [healthcheck | -h]\n", name, mode, name)
		return 2
	}

	err := run(ctx, getenv)
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return 0
	}
	NewLogger(stderr, name, NewSettings(getenv)).Error("failed", slog.Any("error", err))
	return 1
}

type (
	commandKey struct{}
	mode       int
	command    struct {
		mode mode
		out  io.Writer
	}
)

const (
	modeServe mode = iota
	modeHealthcheck
	modeHelp
)

// Intercept carries out what [Main] was asked for instead of serving, and reports whether it was. A service's start-up
// calls it when every setting has been read, with the address it would listen on:
//
//	if done, err := app.Intercept(ctx, settings, addr); done {
//		return err
//	}
//
// An error among the settings is part of the answer to a health check and is left out of help, which shows the table
// anyway.
func Intercept(ctx context.Context, s *Settings, addr string) (done bool, err error) {
	c, _ := ctx.Value(commandKey{}).(command)
	switch c.mode {
	case modeHelp:
		return true, s.Print(c.out)
	case modeHealthcheck:
		if err := s.Err(); err != nil {
			return true, err
		}
		return true, Healthcheck(ctx, addr)
	default:
		return false, nil
	}
}

// healthTimeout is shorter than a container runtime's usual patience, so that the reason gets into its health log.
const healthTimeout = 3 * time.Second

// Healthcheck asks the service that listens on addr whether it is ready, and returns its answer as an error if it is
// not. An addr that means all interfaces is asked on the loopback one.
func Healthcheck(ctx context.Context, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("check health of %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port) + "/readyz"

	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // what was read of it counts
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // what could be read of it is the reason
	return fmt.Errorf("check health: %s answers %s: %s", url, resp.Status, body)
}
