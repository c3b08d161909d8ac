package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Before rows go, how far each group is is noted, a group's whose routes are gone included. While Kafka cannot be
// asked, nothing goes.
func TestPruneNotesFloorsFirst(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		db := pgtest.New(t, "inbox", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, inbox.Migration()) })
		client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		topic := c.Topic(t, 2)
		group, gone, never := brokertest.Name(t), brokertest.Name(t), brokertest.Name(t)
		for name, next := range map[string]int64{group: 3, gone: 1} {
			if err := client.CommitFor(t.Context(), name, map[broker.TopicPartition]int64{{Topic: topic, Partition: 1}: next}); err != nil {
				t.Fatal(err)
			}
		}
		for _, consumer := range []string{group, gone, never, group + inbox.Forever} {
			if _, err := db.Exec(t.Context(), `INSERT INTO inbox (consumer, id, seen_at) VALUES ($1, $2, now() - interval '2 hours')`, consumer, uuid.New()); err != nil {
				t.Fatal(err)
			}
		}
		reacts := saga.NewTopic[struct{}](topic)
		svc := saga.Service{Name: group, Routes: []saga.Route{saga.On(reacts, func(context.Context, pgx.Tx, saga.Msg[struct{}]) ([]saga.Out, error) { return nil, nil })}}
		p := pruner{db, client, svc, time.Hour, slog.New(slog.DiscardHandler)}

		away, err := broker.Open(broker.Config{Brokers: []string{pgtest.FreeAddr(t)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(away.Close)
		blind := p
		blind.client = away
		if n, err := blind.prune(t.Context()); err == nil || n != 0 {
			t.Errorf("pruned %d rows without Kafka, %v", n, err)
		}
		if n, err := p.prune(t.Context()); err != nil || n != 3 {
			t.Errorf("pruned %d rows, %v, want all three but the redriven one", n, err)
		}
		var got []string
		for _, consumer := range []string{group, gone, never} {
			floors, err := inbox.Floors(t.Context(), db, consumer)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range floors {
				got = append(got, fmt.Sprintf("%t %d %d", f.Topic == topic, f.Partition, f.Next))
			}
		}
		if !slices.Equal(got, []string{"true 1 3", "true 1 1"}) {
			t.Errorf("floors %v", got)
		}
	})
}
