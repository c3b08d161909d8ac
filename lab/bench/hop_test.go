package bench_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/lab/rig"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// BenchmarkHop is what an event costs at the least on a machine, on its way from one service to the next: a durable
// transaction of two round trips, a publication and the fetch that waits for it, one event at a time and nothing beside
// it. An order makes four such hops. "paced" leaves the machine idle in between, as few orders a second do: what had
// just run has then gone to sleep.
func BenchmarkHop(b *testing.B) {
	db := pgtest.Durable(b)
	if _, err := db.Exec(b.Context(), `CREATE TABLE work (id uuid PRIMARY KEY)`); err != nil {
		b.Fatal(err)
	}
	kafka := brokertest.Kafka(b)
	topic := kafka.Topic(b, 1)
	client, err := broker.Open(broker.Config{Brokers: kafka.Brokers()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	arrived := make(chan struct{}, 1)
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() {
		done <- client.Consume(ctx, broker.GroupConfig{Group: "hop", Topics: []string{topic}}, func(ctx context.Context, s *broker.Session) {
			for {
				polled, err := s.Poll(ctx, 500)
				if err != nil {
					return
				}
				if len(polled.Records) > 0 {
					arrived <- struct{}{}
				}
			}
		})
	}()
	b.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	transact := func() {
		if err := pg.InTx(b.Context(), db, func(tx pgx.Tx) error {
			if _, err := tx.Exec(b.Context(), `SELECT id FROM work WHERE id = $1 FOR UPDATE`, uuid.New()); err != nil {
				return err
			}
			var batch pgx.Batch
			batch.Queue(`INSERT INTO work (id) VALUES ($1)`, uuid.Must(uuid.NewV7()))
			return pg.Defer(b.Context(), tx, &batch)
		}); err != nil {
			b.Fatal(err)
		}
	}
	value := make([]byte, 700)
	publish := func() {
		if err := client.Produce(b.Context(), []broker.Record{{Topic: topic, Value: value}})[0]; err != nil {
			b.Fatal(err)
		}
	}
	publish() // the first waits for the group to form
	<-arrived
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); { // the broker's compiler
		publish()
		<-arrived
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"transaction", transact},
		{"publication", func() { publish(); <-arrived }},
		{"hop", func() { transact(); publish(); <-arrived }},
	} {
		b.Run(step.name, func(b *testing.B) {
			began := machineCPU(b)
			for b.Loop() {
				step.do()
			}
			b.ReportMetric((machineCPU(b)-began)*1000/float64(b.N), "CPU-ms/op")
		})
		b.Run(step.name+"/paced", func(b *testing.B) {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			began := machineCPU(b)
			for b.Loop() {
				b.StopTimer()
				<-tick.C
				b.StartTimer()
				step.do()
			}
			b.ReportMetric((machineCPU(b)-began)*1000/float64(b.N), "CPU-ms/op")
		})
	}
}

func machineCPU(b *testing.B) float64 {
	b.Helper()
	cpu, err := rig.MachineCPU()
	if err != nil {
		b.Fatal(err)
	}
	return cpu
}
