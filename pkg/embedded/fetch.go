package embedded

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// fetchError says what is missing and how to get it.
func (j job) fetchError(err, cause error) error {
	if cause != nil {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	return fmt.Errorf("fetch PostgreSQL %s: %w\n"+
		"It is the Maven artifact io.zonky.test.postgres:embedded-postgres-binaries-<system>-<machine>:%s.\n"+
		"Set %s to a Maven repository that has it (HTTPS_PROXY is heeded too),\n"+
		"or do without it: use a server of your own and set the *_DATABASE_URL variables to it",
		PostgresVersion, err, PostgresVersion, repositoryEnv)
}

// lastFailure remembers why a request failed, which the library does not tell.
type lastFailure struct{ err error }

func (l *lastFailure) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	switch {
	case err != nil:
		l.err = err
	case resp.StatusCode != http.StatusOK:
		l.err = fmt.Errorf("%s: %s", r.URL.Redacted(), resp.Status)
	}
	return resp, err
}

// lock takes an exclusive lock on a file, which ends with this process at the latest. Taken by another process, it is
// waited for, or else an error.
func lock(ctx context.Context, path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || !wait {
			f.Close()
			return nil, fmt.Errorf("%s is in use by another server: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// portTaken recognises what the library and PostgreSQL say of a port that somebody else listens on.
func portTaken(err error) bool {
	return strings.Contains(err.Error(), "process already listening on port") ||
		strings.Contains(err.Error(), "Address already in use")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
