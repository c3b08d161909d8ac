package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// root is the top of the repository, where README's commands are run.
const root = "../.."

// compose is the stack of docker-compose.yml, beside any other on this machine.
type compose struct {
	env []string
	url string // of the order service
}

// dockerHere tells whether there is Docker to use, as the test kits do.
func dockerHere(t *testing.T) bool {
	switch os.Getenv("CONVERGE_TEST_SERVERS") {
	case "docker":
		return true
	case "embedded":
		return false
	}
	return exec.CommandContext(t.Context(), "docker", "info").Run() == nil &&
		exec.CommandContext(t.Context(), "docker", "compose", "version").Run() == nil
}

// command prepares a shell command as README shows it.
func (c compose) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = root, c.env
	cmd.WaitDelay = time.Second // what it has started may hold on to its output
	return cmd
}

// run runs a shell command and returns what it prints.
func (c compose) run(t *testing.T, line string) string {
	t.Helper()
	out, err := c.command(t.Context(), line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// commands are those that README shows for a tool in a container.
func commands(t *testing.T, tool string) []string {
	t.Helper()
	readme, err := os.ReadFile(root + "/README.md")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(strings.ReplaceAll(string(readme), "\\\n", " ")) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
		if strings.HasPrefix(line, "docker compose exec ") && strings.Contains(line, tool) {
			found = append(found, line)
		}
	}
	if found == nil {
		t.Errorf("README.md shows no command with %s", tool)
	}
	return found
}

// up builds and starts a stack of the test's own, as README says, and takes it away with the test.
func up(t *testing.T) compose {
	t.Helper()
	c := compose{env: append(os.Environ(), "COMPOSE_PROJECT_NAME="+unique("converge-e2e"))}
	for _, port := range []string{
		"KAFKA_PORT", "ORDER_DB_PORT", "INVENTORY_DB_PORT", "PAYMENT_DB_PORT", "INVENTORY_PORT", "PAYMENT_PORT", "PROMETHEUS_PORT",
		"PROFILE_DB_PORT", "SEARCH_DB_PORT", "ANALYTICS_DB_PORT", "PROFILE_PORT", "SEARCH_PORT", "ANALYTICS_PORT",
		"CHECKER_DB_PORT", "CHECKER_PORT", "ORDER_PORT",
	} {
		addr := pgtest.FreeAddr(t)
		_, number, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		c.env, c.url = append(c.env, port+"="+number), "http://"+addr
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			logs, _ := c.command(ctx, "docker compose ps --all; docker compose logs --tail 30").CombinedOutput()
			t.Logf("%s", logs)
		}
		out, err := c.command(ctx, "make down ARGS='--volumes --rmi local --timeout 15'").CombinedOutput()
		if err == nil {
			return
		}
		// An engine can lose the end of a container that it has killed, and then keeps its network for ever
		// (moby/moby#42119). All that is ours is gone all the same.
		left, psErr := c.command(ctx, "docker compose ps --all --quiet").CombinedOutput()
		if !strings.Contains(string(out), "has active endpoints") || psErr != nil || len(left) > 0 {
			t.Errorf("make down: %v\n%s%s", err, out, left)
		}
	})
	c.run(t, "make up")
	return c
}

// place places an order that the seeded stock can fill.
func (c compose) place(t *testing.T) (id string) {
	t.Helper()
	a, err := request(t.Context(), http.MethodPost, c.url+"/orders", cart("ada", "coffee-beans", 2, 2500))
	if err != nil || a.status != http.StatusAccepted {
		t.Fatalf("place an order: %d %s %v", a.status, a.body, err)
	}
	return strings.TrimPrefix(a.header.Get("Location"), "/orders/")
}

func (c compose) confirmed(t *testing.T, id string) {
	t.Helper()
	eventually(t, "order "+id+" settles", func() error {
		o, err := fetch[order](t.Context(), c.url+"/orders/"+id)
		if err == nil && o.Status != confirmed {
			err = fmt.Errorf("it is %s (%s)", o.Status, o.Reason)
		}
		return err
	})
}

// TestCompose does with the stack in containers what README says, and stops and starts some of them.
func TestCompose(t *testing.T) {
	if !dockerHere(t) {
		t.Log("no Docker: compose is not exercised")
		return
	}
	c := up(t)
	id := c.place(t)
	c.confirmed(t, id)

	t.Run("containers are confined", func(t *testing.T) { c.confinement(t) })
	t.Run("console consumer", func(t *testing.T) {
		for _, line := range commands(t, "kafka-console-consumer.sh") {
			c.watch(t, line, id, "ce_type:order.created,", "ce_subject:"+id, "traceparent:00-", `"orderId":"`+id+`"`)
		}
	})
	t.Run("consumer groups", func(t *testing.T) {
		for _, line := range commands(t, "kafka-consumer-groups.sh") {
			eventually(t, "no group lags", func() error { return caughtUp(line, c.run(t, line)) })
		}
	})

	for _, service := range []string{"payment", "kafka", "order-db"} {
		t.Run(service+" goes and comes back", func(t *testing.T) {
			c.run(t, "docker compose stop "+service)
			var waiting string
			if service == "order-db" {
				a, err := request(t.Context(), http.MethodPost, c.url+"/orders", cart("ada", "coffee-beans", 2, 2500))
				if err != nil || a.status != http.StatusServiceUnavailable {
					t.Errorf("an order without the database: %d %s %v", a.status, a.body, err)
				}
			} else {
				waiting = c.place(t)
			}
			c.run(t, "docker compose start "+service)
			eventually(t, "orders are taken", func() error {
				a, err := request(t.Context(), http.MethodGet, c.url+"/readyz", nil)
				if err == nil && a.status != http.StatusOK {
					err = fmt.Errorf("%d %s", a.status, a.body)
				}
				return err
			})
			if waiting != "" {
				c.confirmed(t, waiting)
			}
			c.confirmed(t, c.place(t))
		})
	}
}

// confinement checks that ports are open on this machine alone, and that our containers may do next to nothing.
func (c compose) confinement(t *testing.T) {
	for ports := range strings.Lines(c.run(t, "docker compose ps --format '{{.Ports}}'")) {
		for port := range strings.SplitSeq(strings.TrimSpace(ports), ", ") {
			if strings.Contains(port, "->") && !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s is published to others", port)
			}
		}
	}
	for _, name := range everyService() {
		got := strings.TrimSpace(c.run(t, "docker inspect --format '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.State.Health.Status}}' $(docker compose ps --quiet "+name+")"))
		if user, rest, _ := strings.Cut(got, " "); user == "" || strings.HasPrefix(user, "0") || user == "root" || rest != "true healthy" {
			t.Errorf("%s runs as user, on a read-only root, and is: %s", name, got)
		}
	}
}

// watch runs a command that may go on for ever until it has printed a line with each of the parts.
func (c compose) watch(t *testing.T, line string, parts ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := c.command(ctx, line)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	found := false
	for lines := bufio.NewScanner(out); !found && lines.Scan(); {
		seen = append(seen, lines.Text())
		found = containsAll(lines.Text(), parts)
	}
	cancel()
	_ = cmd.Wait() // it was killed
	if !found {
		t.Errorf("%s prints\n%s\n%s\nwant a line with %q", line, strings.Join(seen, "\n"), complaints.String(), parts)
	}
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// caughtUp reads what kafka-consumer-groups.sh says: each group that it was asked about has a member for every
// partition, and no lag.
func caughtUp(line, description string) error {
	rows := map[string]int{}
	for row := range strings.Lines(description) {
		f := strings.Fields(row) // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID
		if len(f) != 9 || f[0] == "GROUP" || strings.HasPrefix(f[0], "console-consumer-") {
			continue
		}
		if operator := f[0] == saga.OperatorGroup; (f[5] != "0" && f[5] != "-") || f[6] == "-" && !operator { // that one has no members
			return errors.New(strings.TrimSpace(row))
		}
		rows[f[0]]++
	}
	for group, topics := range map[string]int{"order": 4, "inventory": 1, "inventory.release": 1, "payment": 1, "payment.refund": 1, "search": 2, "analytics": 7} {
		asked := strings.Contains(line, "--all-groups") || slices.Contains(strings.Fields(line), group)
		if want := 6 * topics; asked && rows[group] != want {
			return fmt.Errorf("%d partitions of %s, want %d, in\n%s", rows[group], group, want, description)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("no group in\n%s", description)
	}
	return nil
}
