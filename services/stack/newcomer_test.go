package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/testkit/pgtest"
)

var (
	// fileBlocks are the files in docs/build.md: a line with the name, and a block with the content.
	fileBlocks = regexp.MustCompile("(?ms)^`([a-z0-9_/]+\\.[a-z]+)`\n```[a-z]+\n(.*?)^```$")
	// shellBlocks are the commands in docs/build.md that make the module and its binaries.
	shellBlocks = regexp.MustCompile("(?ms)^```sh [a-z]+\n(.*?)^```$")
)

// newcomer is the module that docs/build.md makes, in a directory outside of the repository.
type newcomer struct {
	*testing.T
	dir string
	env []string
}

// build makes the module with the files and the commands of docs/build.md, in its own directory and without the
// workspace.
func build(t *testing.T) newcomer {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile(filepath.Join(root, "docs/build.md"))
	if err != nil {
		t.Fatal(err)
	}
	// Without flags, as anybody builds: then what `go build` has compiled of the library need not be compiled again.
	// The checksums are the library's own: none need be looked up.
	n := newcomer{t, t.TempDir(), append(os.Environ(), "CONVERGE="+root, "GOWORK=off")}
	sums, err := os.ReadFile(filepath.Join(root, "testkit/go.sum"))
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "go.sum"), sums, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	commands, files := shellBlocks.FindAllSubmatch(doc, -1), fileBlocks.FindAllSubmatch(doc, -1)
	if len(commands) != 2 || len(files) != 5 {
		t.Fatalf("docs/build.md has %d blocks of commands and %d files, want 2 and 5", len(commands), len(files))
	}
	n.shell(string(commands[0][1]))
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(n.dir, string(f[1])), f[2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.shell(string(commands[1][1]))
	n.shell("go vet ./...") // compiles its test
	return n
}

// shell runs commands in the newcomer's directory.
func (n newcomer) shell(commands string) {
	n.Helper()
	cmd := exec.CommandContext(n.Context(), "sh", "-e", "-c", commands)
	cmd.Dir, cmd.Env = n.dir, n.env
	if out, err := cmd.CombinedOutput(); err != nil {
		n.Fatalf("%s\n%v\n%s", commands, err, out)
	}
}

// converge runs the newcomer's own converge.
func (n newcomer) converge(args ...string) (string, error) {
	cmd := exec.CommandContext(n.Context(), filepath.Join(n.dir, "bin/converge"), args...)
	cmd.Env = n.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("converge %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// serve runs the newcomer's service until the end of the test, and waits until it is ready.
func (n newcomer) serve(url string) {
	n.Helper()
	var out output
	cmd := exec.CommandContext(context.WithoutCancel(n.Context()), filepath.Join(n.dir, "bin/loyalty"))
	cmd.Env, cmd.Stdout, cmd.Stderr = n.env, &out, &out
	if err := cmd.Start(); err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() {
		kill := time.AfterFunc(stopWithin, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			n.Errorf("the newcomer's service ended with %v\n%s", err, out.String())
		}
	})
	eventually(n.T, "the newcomer's service is ready", func() error {
		var answer struct{}
		return call(n.Context(), http.MethodGet, url+"/readyz", "", http.StatusOK, &answer)
	})
}

// setting is what the stack's banner says of a name: the rest of its line.
func setting(t *testing.T, banner, name string) string {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(banner))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strings.Trim(rest, " '")
		}
	}
	t.Fatalf("the banner does not say %s:\n%s", name, banner)
	return ""
}

// The service of docs/build.md is built outside of the repository, runs beside the others on a database that the stack
// gives it, and is operated by a command of its own: its part in the whole, how far it is, its dead letters, and how
// they come back.
func TestNewcomer(t *testing.T) {
	began := time.Now()
	n := build(t)
	t.Logf("built in %s", time.Since(began))
	env := settings(t)
	env["STACK_DATABASES"] = "loyalty"
	banner, _ := start(t, env)
	database, addr := setting(t, banner, "export LOYALTY_DATABASE_URL="), pgtest.FreeAddr(t)
	n.env = append(n.env, "LOYALTY_DATABASE_URL="+database, "LOYALTY_ADDR="+addr, "KAFKA_BROKERS="+setting(t, banner, "Kafka "), "LOG_LEVEL=error",
		"CONVERGE_SERVICES=order=http://"+env["ORDER_ADDR"]+",loyalty=http://"+addr)
	n.serve("http://" + addr)
	db, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	exec := func(sql string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	confirm := func() string {
		t.Helper()
		return place(t, "http://"+env["ORDER_ADDR"]+"/orders", `{"userId":"ada","items":[{"productId":"coffee-beans","quantity":1}],"amount":1250,"currency":"EUR"}`).ID
	}
	granted := func(id string) {
		t.Helper()
		eventually(t, "points for order "+id, func() error {
			var points int
			return db.QueryRow(t.Context(), `SELECT points FROM points WHERE order_id = $1`, id).Scan(&points)
		})
	}
	says := func(want string, args ...string) {
		t.Helper()
		eventually(t, "converge "+strings.Join(args, " ")+" says "+want, func() error {
			out, err := n.converge(args...)
			if err == nil && !strings.Contains(out, want) {
				err = fmt.Errorf("it says\n%s", out)
			}
			return err
		})
	}

	granted(confirm())
	says("order -- order.confirmed --> loyalty\n", "graph", "-from-services")
	says("loyalty -- points.granted --> points_granted_sink(( ))\n", "graph")
	says("--allow-principal User:loyalty --operation Read --operation DescribeConfigs --topic order.confirmed\n", "graph", "-format", "acl")
	says("loyalty  order.confirmed  6           0\n", "groups", "-group", "loyalty")
	says("No dead letters wait.", "dlq", "list", "-group", "loyalty")

	exec(`ALTER TABLE points ADD CONSTRAINT broken CHECK (points < 0) NOT VALID`)
	id := confirm()
	says("loyalty.dlq/0/0  "+id, "dlq", "list")
	exec(`ALTER TABLE points DROP CONSTRAINT broken`)
	says("loyalty.dlq/0/0 -> order.confirmed\n", "dlq", "redrive", "-group", "loyalty")
	granted(id)
	says("No dead letters wait.", "dlq", "list", "-group", "loyalty")
}
