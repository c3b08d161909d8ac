package app_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/app"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

type visitV1 struct {
	Guest string `json:"guest"`
}

var (
	arrived = saga.NewTopic[visitV1]("guest.arrived")
	left    = saga.NewTopic[visitV1]("guest.left")
	stays   = saga.NewTopic[visitV1]("guest.stays")
)

// hotel says of a guest who has not left after a while that they stay.
func hotel(ctx context.Context, getenv func(string) string) error {
	return app.Run(ctx, app.NewSettings(getenv), app.Service{
		Service: saga.Service{Name: "hotel", Routes: []saga.Route{
			saga.On(arrived, func(_ context.Context, _ pgx.Tx, m saga.Msg[visitV1]) ([]saga.Out, error) {
				return saga.After(300*time.Millisecond, saga.Emit(m, stays, m.Data)...), nil
			}, stays),
			saga.On(left, func(_ context.Context, _ pgx.Tx, m saga.Msg[visitV1]) ([]saga.Out, error) {
				return saga.Cancel(stays, m.Key), nil
			}, stays),
		}},
		Addr:       "127.0.0.1:8091",
		Migrations: pg.Dir(files, "testdata/loyalty"),
	})
}

// Two instances of a service on one database fire its timers through Kafka, each once; what one of them has set while
// it stops, the other fires.
func TestTimersOfInstances(t *testing.T) {
	const guests = 60
	cluster := brokertest.Fake(t)
	database := pgtest.URL(t)
	start := func() (stop func()) {
		env := map[string]string{
			"HOTEL_ADDR": pgtest.FreeAddr(t), "HOTEL_DATABASE_URL": database,
			"KAFKA_BROKERS": cluster.Brokers()[0], "KAFKA_PARTITIONS": "2", "LOG_LEVEL": "error",
		}
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { return hotel(ctx, getenv(env)) })
		return func() {
			cancel()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	first, second := start(), start()
	client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce := func(topic saga.Topic[visitV1], from, to int) {
		t.Helper()
		var records []broker.Record
		for n := from; n < to; n++ {
			guest := fmt.Sprint("guest-", n)
			r, err := saga.Encode("door", saga.New(t.Context(), topic, guest, visitV1{guest}))
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, r)
		}
		until(t, "the topics exist and take events", func() bool { return client.Produce(t.Context(), records[:1])[0] == nil })
		for _, err := range client.Produce(t.Context(), records[1:]) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	said := func() map[string]int {
		times := map[string]int{}
		if err := client.Scan(t.Context(), stays.Name(), func(r broker.Record) error { times[string(r.Key)]++; return nil }); err != nil {
			return nil
		}
		return times
	}
	produce(left, guests, guests+1) // before they have arrived: nothing
	produce(arrived, 0, guests/2)
	until(t, "the first half of the timers fires", func() bool { return len(said()) == guests/2 })
	produce(arrived, guests/2, guests)
	first()
	until(t, "the other half fires", func() bool { return len(said()) == guests })
	second()
	if times := said(); slices.ContainsFunc(slices.Collect(maps.Values(times)), func(n int) bool { return n != 1 }) {
		t.Errorf("some were told of more than once: %v", times)
	}
}
