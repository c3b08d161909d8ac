package bench

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
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/floor"
	"github.com/converge-dev/converge/lab/bench/usual"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// Mode is what does the work.
type Mode string

// Converge is the system; Usual is what it is compared with, see package usual; Floor is the least that the same work
// costs, see package floor.
const (
	Converge Mode = "converge"
	Usual    Mode = "usual"
	Floor    Mode = "floor"
)

func (b *bench) run(ctx context.Context, of leg) (run ModeRun, err error) {
	run = ModeRun{Mode: of.mode, Curve: of.curve}
	suffix := ""
	if of.curve != "" {
		run.Value = of.value()
		suffix = fmt.Sprintf("_%s_%d", of.curve, of.value())
		defer func() {
			err = errors.Join(err, b.servers.drop(context.WithoutCancel(ctx), string(of.mode)+"_", suffix))
		}()
	}
	urls, dbs, err := b.databases(ctx, string(of.mode)+"_", suffix)
	defer dbs.close()
	if err != nil {
		return run, err
	}
	if of.mode == Floor {
		err = b.floor(ctx, dbs, &run)
		return run, err
	}
	l := rig.Launch{
		Services: serviceNames[:], Instances: of.instances, Brokers: b.servers.Kafka.Addr.String(), Partitions: b.opts.Partitions,
		Databases: urls, Logs: b.opts.Dir, Env: map[string][]string{},
	}
	for _, service := range serviceNames {
		l.Env[service] = b.opts.Env
	}
	terminal := []string{event.OrderConfirmed.Name(), event.OrderCancelled.Name()}
	switch of.mode {
	case Converge:
		l.Command = func(service string) []string { return []string{filepath.Join(b.bins, service)} }
		l.Profile = b.opts.Profile
	case Usual:
		self, err := os.Executable()
		if err != nil {
			return run, err
		}
		l.Command = func(service string) []string { return []string{self, string(Usual), service} }
		terminal = []string{usual.Confirmed}
	default:
		return run, fmt.Errorf("there is no such mode")
	}
	err = b.system(ctx, of, l, dbs, terminal, &run)
	return run, err
}

// databases makes a database for each service.
func (b *bench) databases(ctx context.Context, prefix, suffix string) (urls map[string]string, dbs databases, err error) {
	urls, dbs = map[string]string{}, databases{}
	for _, service := range serviceNames {
		if urls[service], err = b.servers.CreateDatabase(ctx, b.servers.of(service), prefix+service+suffix); err != nil {
			return urls, dbs, err
		}
		if dbs[service], err = pg.Open(ctx, urls[service], pg.ApplicationName("bench")); err != nil {
			return urls, dbs, err
		}
	}
	return urls, dbs, nil
}

// system measures the services that l starts.
func (b *bench) system(ctx context.Context, of leg, l rig.Launch, dbs databases, terminal []string, run *ModeRun) (err error) {
	b.say("starting %d × %s", l.Instances, strings.Join(serviceNames[:], ", "))
	began := time.Now()
	processes, err := l.Start(ctx)
	defer func() {
		b.say("stopping the services")
		took, stopErr := rig.Stop(processes)
		run.StopSeconds = took.Seconds()
		err = errors.Join(err, stopErr)
	}()
	if err != nil {
		return err
	}
	run.StartSeconds = time.Since(began).Seconds()

	client, err := broker.Open(broker.Config{Brokers: []string{l.Brokers}, ClientID: "bench"})
	if err != nil {
		return err
	}
	defer client.Close()
	b.say("putting %d products in stock", products)
	if err := seed(ctx, addrsOf(processes, "inventory")[0]); err != nil {
		return err
	}
	b.say("putting money into %d accounts", users)
	if err := fund(ctx, dbs["payment"]); err != nil {
		return err
	}
	r := &running{launch: l, name: of.prefix(), servers: b.servers, processes: processes, databases: dbs, mode: run.Mode, driver: newDriver(addrsOf(processes, "order"), b.opts.Seed)}
	defer r.driver.close()
	if of.stored > 0 {
		b.say("storing %d orders of the past", of.stored)
		ids, err := newHistory(of.stored, b.opts.Seed).store(ctx, dbs)
		if err != nil {
			return err
		}
		r.driver.tracker.know(ids)
	}

	watchCtx, stopWatching := context.WithCancel(ctx)
	var watching errgroup.Group
	watching.Go(func() error { return r.driver.tracker.watch(watchCtx, client, terminal) })
	defer func() {
		stopWatching()
		err = errors.Join(err, watching.Wait())
	}()
	return b.measureAll(ctx, r, of.scenarios, run)
}

// floor measures the SQL work alone, in batches as large as a closed loop's clients, and larger.
func (b *bench) floor(ctx context.Context, dbs databases, run *ModeRun) error {
	for _, service := range serviceNames {
		if err := pg.Migrate(ctx, dbs[service], outbox.Migration(), inbox.Migration(), pg.Migration{Name: service, FS: migrations.For(service)}); err != nil {
			return err
		}
	}
	if err := errors.Join(stockUp(ctx, dbs["inventory"]), fund(ctx, dbs["payment"])); err != nil {
		return err
	}
	r := &running{servers: b.servers, databases: dbs, mode: Floor}
	made, acked := newOrders(b.opts.Seed, 0), map[uuid.UUID]struct{}{}
	for _, size := range floorBatches {
		res := Result{Scenario: fmt.Sprintf("batches of %d", size)}
		b.say("%s", res.Scenario)
		load := func(length time.Duration) (int, error) {
			until := time.Now().Add(length)
			return floor.Run(ctx, dbs, func() []floor.Order {
				if time.Now().After(until) {
					return nil
				}
				batch := make([]floor.Order, size)
				for i := range batch {
					batch[i] = made.next().forFloor()
					acked[batch[i].ID] = struct{}{}
				}
				return batch
			})
		}
		if _, err := load(b.opts.FloorLength / 5); err != nil {
			return err
		}
		before, err := r.look(ctx, true)
		if err != nil {
			return err
		}
		began := time.Now()
		if res.Orders, err = load(b.opts.FloorLength); err != nil {
			return err
		}
		res.Seconds = time.Since(began).Seconds()
		res.OrdersPerSecond = float64(res.Orders) / res.Seconds
		after, err := r.look(ctx, false)
		if err != nil {
			return err
		}
		res.difference(before, after)
		if res.Violations, err = verify(ctx, dbs, promised{acked: acked, stock: stock}, 0); err != nil {
			return err
		}
		b.say("  %s", res.line())
		run.Results = append(run.Results, res)
	}
	return nil
}

func addrsOf(all []*rig.Process, service string) []string {
	var addrs []string
	for _, p := range all {
		if p.Service == service {
			addrs = append(addrs, p.Addr)
		}
	}
	return addrs
}

// stockUp puts the products in stock where there is no service to ask.
func stockUp(ctx context.Context, inventory *pgxpool.Pool) error {
	const sql = `INSERT INTO products (id, name, price, currency, stock, available, reserved)
SELECT 'product-' || n, 'Product ' || n, $3, 'EUR', $2, $2, 0 FROM generate_series(0, $1 - 1) AS n`
	if _, err := inventory.Exec(ctx, sql, products, int64(stock), int64(price)); err != nil {
		return fmt.Errorf("put products in stock: %w", err)
	}
	return nil
}

// seed puts the products in stock over inventory's API.
func seed(ctx context.Context, addr string) error {
	var g errgroup.Group
	g.SetLimit(8)
	for n := range products {
		g.Go(func() error {
			body := fmt.Sprintf(`{"name":"Product %d","price":%d,"currency":"EUR","stock":%d}`, n, price, stock)
			req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+addr+"/products/"+productID(n), strings.NewReader(body))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close() //nolint:errcheck // read to its end
			answer, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusCreated {
				return fmt.Errorf("put %s in stock: %s: %s", productID(n), res.Status, answer)
			}
			return nil
		})
	}
	return g.Wait()
}
