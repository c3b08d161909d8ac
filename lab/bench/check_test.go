package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/lab/bench/history"
	"github.com/converge-dev/converge/lab/bench/testbed"
	"github.com/converge-dev/converge/lab/bench/workload"
	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/checker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/services/system"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// checkedServices are those that the checker compares, and itself.
var checkedServices = []string{"order", "inventory", "payment", "checker"}

// checkedSystem is these services in this process, with databases on one durable server.
type checkedSystem struct {
	addrs map[string]string
	dbs   testbed.Databases
}

func startChecked(b *testing.B, settings map[string]string) *checkedSystem {
	b.Helper()
	admin := pgtest.Durable(b)
	kafka := brokertest.Kafka(b)
	s := &checkedSystem{addrs: map[string]string{}, dbs: testbed.Databases{}}
	env := map[string]string{"KAFKA_BROKERS": strings.Join(kafka.Brokers(), ","), "LOG_LEVEL": "error", "CHECK_EVERY": "0s"}
	maps.Copy(env, settings)
	for _, name := range checkedServices {
		s.addrs[name] = pgtest.FreeAddr(b)
		if _, err := admin.Exec(b.Context(), `CREATE DATABASE "`+name+`"`); err != nil {
			b.Fatal(err)
		}
		url := strings.Replace(admin.Config().ConnString(), "/postgres?", "/"+name+"?", 1)
		prefix := strings.ToUpper(name)
		env[prefix+"_ADDR"], env[prefix+"_DATABASE_URL"], env[prefix+"_URL"] = s.addrs[name], url, "http://"+s.addrs[name]
		pool, err := pg.Open(b.Context(), url)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(pool.Close)
		s.dbs[name] = pool
	}
	ctx, stop := context.WithCancel(b.Context())
	var running errgroup.Group
	for _, svc := range system.Services() {
		if s.addrs[svc.Name] != "" {
			running.Go(func() error { return svc.Run(ctx, func(name string) string { return env[name] }) })
		}
	}
	b.Cleanup(func() {
		stop()
		if err := running.Wait(); err != nil {
			b.Error(err)
		}
	})
	for _, addr := range s.addrs {
		for until := time.Now().Add(time.Minute); ; {
			res, err := http.Get("http://" + addr + "/readyz")
			if err == nil {
				res.Body.Close()
				if res.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(until) {
				b.Fatalf("%s is not ready: %v", addr, err)
			}
			rig.Pause(b.Context(), 20*time.Millisecond)
		}
	}
	for until := time.Now().Add(time.Minute); ; { // the topics are there when a check can be made
		_, err := s.check(b.Context(), `{}`)
		if err == nil {
			break
		}
		if time.Now().After(until) {
			b.Fatal(err)
		}
		rig.Pause(b.Context(), 100*time.Millisecond)
	}
	if err := workload.PutStock(b.Context(), s.addrs["inventory"]); err != nil {
		b.Fatal(err)
	}
	if err := workload.Fund(b.Context(), s.dbs["payment"]); err != nil {
		b.Fatal(err)
	}
	return s
}

// check asks for a check; body is the request's.
func (s *checkedSystem) check(ctx context.Context, body string) (record checker.Record, err error) {
	answer, err := send(ctx, "http://"+s.addrs["checker"]+"/checks", []byte(body), http.StatusOK)
	if err != nil {
		return record, err
	}
	if err = json.Unmarshal(answer, &record); err == nil && len(record.Failed) > 0 {
		err = fmt.Errorf("could not look: %+v", record.Failed)
	}
	return record, err
}

func send(ctx context.Context, url string, body []byte, want int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != want {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return answer, err
}

// disagreements are ten, spread over the orders: three of each kind of lost row, and one too many.
func (s *checkedSystem) disagree(b *testing.B, ids []uuid.UUID) {
	b.Helper()
	for i := range 10 {
		id := ids[(2*i+1)*len(ids)/20]
		db, sql := "order", `UPDATE orders SET status = 'CANCELLED' WHERE id = $1`
		switch i % 3 {
		case 0:
			db, sql = "inventory", `DELETE FROM reservations WHERE order_id = $1`
		case 1:
			db, sql = "payment", `DELETE FROM payments WHERE order_id = $1`
		}
		if _, err := s.dbs[db].Exec(b.Context(), sql, id); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck is checks of settled orders: of all that there is (digests, stock and ledger), and of the digests
// alone; then the same with ten disagreements, which it must find, and nothing else of orders.
func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := startChecked(b, nil)
			h := history.New(n, 1)
			ids, err := h.Store(b.Context(), s.dbs)
			if err != nil {
				b.Fatal(err)
			}
			measure := func(name, body string, found int) {
				b.Run(name, func(b *testing.B) {
					var cost checker.Cost
					for b.Loop() {
						r, err := s.check(b.Context(), body)
						if err != nil {
							b.Fatal(err)
						}
						wrong := map[uuid.UUID]bool{}
						for _, f := range r.Findings {
							wrong[f.OrderID] = true
						}
						if len(wrong) != found || r.Order == uuid.Nil && r.Checked < int64(n) {
							b.Fatalf("found %d of %d orders, want %d of %d: %+v", len(wrong), r.Checked, found, n, r.Findings)
						}
						cost = r.Cost
					}
					b.ReportMetric(float64(cost.Requests), "requests")
					b.ReportMetric(float64(cost.Bytes), "bytes")
					b.ReportMetric(float64(cost.Rows), "rows")
				})
			}
			digests := fmt.Sprintf(`{"since":%q}`, h.Begin.Add(-time.Second).Format(time.RFC3339))
			measure("agree/digests", digests, 0)
			measure("agree/all", `{}`, 0)
			s.disagree(b, ids)
			measure("ten differ/digests", digests, 10)
			measure("ten differ/one order", fmt.Sprintf(`{"orderId":%q}`, ids[len(ids)/20]), 1)
		})
	}
}

// BenchmarkCheckUnderLoad is 100,000 orders as fast as 64 clients can place them, one in twenty cancelled at some time,
// while checks of everything follow each other: what is on its way must not look wrong. It is made for -benchtime 1x.
func BenchmarkCheckUnderLoad(b *testing.B) {
	const orders, clients = 100_000, 64
	for b.Loop() {
		s := startChecked(b, map[string]string{"CHECK_GRACE": "1s"})
		ctx, stop := context.WithCancel(b.Context())
		var looking sync.WaitGroup
		var checks, onTheirWay, judged int64
		looking.Go(func() {
			for ctx.Err() == nil {
				r, err := s.check(ctx, `{}`)
				if ctx.Err() != nil {
					return
				}
				if err != nil || len(r.Findings) > 0 {
					b.Errorf("check %d: %v, found %+v", checks, err, r.Findings)
				}
				checks, onTheirWay, judged = checks+1, max(onTheirWay, r.InFlight), judged+r.Checked
			}
		})
		began := time.Now()
		if err := s.flood(b.Context(), orders, clients); err != nil {
			b.Error(err)
		}
		b.ReportMetric(orders/time.Since(began).Seconds(), "orders/s")
		for { // until what is left has settled, and has been looked at
			r, err := s.check(b.Context(), `{}`)
			if err != nil || len(r.Findings) > 0 {
				b.Fatalf("at the end: %v, found %+v", err, r.Findings)
			}
			if r.InFlight == 0 && r.Checked == orders {
				break
			}
		}
		stop()
		looking.Wait()
		b.ReportMetric(float64(checks), "checks")
		b.ReportMetric(float64(onTheirWay), "in-flight")
		b.ReportMetric(float64(judged), "orders-checked")
	}
}

// flood places orders, and cancels one in twenty: half of these at once, and half when they have long settled.
func (s *checkedSystem) flood(ctx context.Context, n, clients int) error {
	var begun atomic.Int64
	var g errgroup.Group
	for client := range clients {
		g.Go(func() error {
			made := workload.NewOrders(1, uint64(client))
			type placed struct {
				ID   string `json:"orderId"`
				User string `json:"userId"`
			}
			var past []placed
			cancel := func(o placed) error {
				_, err := send(ctx, "http://"+s.addrs["order"]+"/orders/"+o.ID+"/cancel", fmt.Appendf(nil, `{"userId":%q,"reason":"changed my mind"}`, o.User), http.StatusAccepted)
				return err
			}
			for i := 0; begun.Add(1) <= int64(n); i++ {
				answer, err := send(ctx, "http://"+s.addrs["order"]+"/orders", made.Next().AppendTo(nil), http.StatusAccepted)
				var o placed
				if err == nil {
					err = json.Unmarshal(answer, &o)
				}
				past = append(past, o)
				switch {
				case err != nil:
				case i%40 == 11:
					err = cancel(o)
				case i%40 == 31:
					err = cancel(past[i/2])
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}
