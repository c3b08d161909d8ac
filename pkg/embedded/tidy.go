package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// tidy makes the directory fit to start from, whatever the last run left: a making that was cut off, a server whose
// supervisor was killed, the pid of one that is gone. The caller holds the directory's lock.
func (j *job) tidy(ctx context.Context) error {
	logs := filepath.Join(j.Dir, "log")
	if err := os.RemoveAll(logs); err != nil {
		return err
	}
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", logs); err != nil { // where the library puts the server's log
		return err
	}
	if !exists(j.initialised()) {
		if err := os.RemoveAll(j.data()); err != nil {
			return err
		}
		j.password = rand.Text() // nobody else on this machine can guess it
		return os.WriteFile(j.passwordFile(), []byte(j.password), 0o600)
	}
	password, err := os.ReadFile(j.passwordFile())
	if err != nil {
		return err
	}
	j.password = string(password)

	// The library replaces data of another version. We do not.
	version, err := os.ReadFile(filepath.Join(j.data(), "PG_VERSION"))
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
	// The pid may be another program's by now, and is not to be signalled then: the port's answer is the proof.
	lines := strings.Split(string(pid), "\n")
	if len(lines) < 4 || !j.answersAt(ctx, strings.TrimSpace(lines[3])) {
		return os.Remove(pidFile)
	}
	out, err := exec.CommandContext(ctx, j.binary("pg_ctl"), "stop", "-w", "-D", j.data()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("stop the server that an earlier run left in %s: %w: %s", j.Dir, err, out)
	}
	return nil
}

// answersAt tells whether the server that listens on the port is the one of this data directory.
func (j *job) answersAt(ctx context.Context, port string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	url := fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%s/postgres?sslmode=disable", j.password, port)
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return false
	}
	defer conn.Close(ctx) //nolint:errcheck // its work is done
	var dir string
	return conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir) == nil && dir == j.data()
}
