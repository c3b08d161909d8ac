package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/bench/verify"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
)

const partitions = 6

// comparing is what both designs share.
type comparing struct {
	*testbed.Testbed
	opts Options
	say  func(format string, args ...any)
}

// contender is one design at work: three processes, and a database of each.
type contender struct {
	design    Design
	all       []*rig.Process
	processes map[string]*rig.Process // by service
	databases testbed.Databases
	quiet     time.Duration // when nothing has changed for so long, what is wrong counts as left
	before    flaws         // what was wrong before, which no later scenario is to blame for
}

// start starts a design's services. What was started has to be stopped even after an error.
func (c *comparing) start(ctx context.Context, design Design) (*contender, error) {
	s := &contender{design: design, processes: map[string]*rig.Process{}, quiet: 10 * time.Second}
	if c.opts.Smoke && design == Synchronous {
		s.quiet = 6 * time.Second
	}
	urls, dbs, err := c.CreateDatabases(ctx, string(design)+"_", "")
	s.databases = dbs
	if err != nil {
		return s, err
	}
	l := rig.Launch{
		Services: workload.Services[:], Instances: 1, Brokers: c.Servers.Kafka.Addr.String(), Partitions: partitions, Databases: urls,
		Logs: filepath.Join(c.opts.Dir, string(design)), Env: map[string][]string{},
		Command: c.Command,
	}
	if err := os.MkdirAll(l.Logs, 0o755); err != nil {
		return s, err
	}
	if design == Converge {
		return s, s.launch(ctx, l)
	}
	self, err := os.Executable()
	if err != nil {
		return s, err
	}
	l.Command = func(service string) []string { return []string{self, string(Synchronous), service} }
	for _, service := range workload.Services {
		l.Env[service] = []string{fmt.Sprintf("%s_DATABASE_CONNECTIONS=%d", strings.ToUpper(service), c.opts.Connections)}
	}
	l.Services = []string{"inventory", "payment"}
	if err := s.launch(ctx, l); err != nil {
		return s, err
	}
	l.Services = []string{"order"} // has to be told where the others are
	l.Env["order"] = append(l.Env["order"], "INVENTORY_URL=http://"+s.processes["inventory"].Addr,
		"PAYMENT_URL=http://"+s.processes["payment"].Addr, "ORDER_ABANDONED_AFTER="+s.quiet.String())
	return s, s.launch(ctx, l)
}

func (s *contender) launch(ctx context.Context, l rig.Launch) error {
	started, err := l.Start(ctx)
	for _, p := range started {
		s.all = append(s.all, p)
		s.processes[p.Service] = p
	}
	return err
}

func (s *contender) stop() error {
	_, err := rig.Stop(s.all)
	s.databases.Close()
	return err
}

// restart starts a killed process where it was, and waits until it is ready.
func (s *contender) restart(ctx context.Context, service string) error {
	if err := s.processes[service].Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return s.processes[service].AwaitReady(ctx)
}

// reconcile asks the synchronous order service to undo what nobody works on any more.
func (s *contender) reconcile(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.processes["order"].Addr+"/reconcile", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		err = errors.Join(err, fmt.Errorf("reconcile: %s: %s", res.Status, answer))
	}
	return err
}

// look reads the three databases and judges them.
func (s *contender) look(ctx context.Context, accepted map[uuid.UUID]struct{}) (flaws, error) {
	var all [3]map[uuid.UUID]string
	for i, of := range []struct{ service, sql string }{
		{"order", `SELECT id, status FROM orders`},
		{"inventory", `SELECT order_id, status FROM reservations`},
		{"payment", `SELECT order_id, status FROM payments`},
	} {
		var err error
		if all[i], err = verify.States(ctx, s.databases[of.service], of.sql); err != nil {
			return nil, fmt.Errorf("look into the database of %s: %w", of.service, err)
		}
	}
	return judge(all[0], all[1], all[2], accepted), nil
}
