package facts_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// An event counts from when that happened which it tells, wherever it waits: in Kafka it may have come a moment ago.
func TestFlow(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		db := pgtest.New(t, "flow", func(ctx context.Context, db *pgxpool.Pool) error { return pg.Migrate(ctx, db, outbox.Migration()) })
		topic, groups := c.Topic(t, 2), map[string][]string{}
		groups[brokertest.Name(t)] = []string{topic}
		flow := func() facts.Flow {
			t.Helper()
			f, err := facts.ReadFlow(t.Context(), db, client, groups)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		if f := flow(); f != (facts.Flow{}) {
			t.Errorf("nothing waits: %+v", f)
		}

		hour := time.Now().Add(-time.Hour)
		record := broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("{}"), Headers: []broker.Header{{Key: "ce_time", Value: []byte(hour.Format(time.RFC3339Nano))}}}
		for _, err := range client.Produce(t.Context(), []broker.Record{record, {Topic: topic, Key: []byte("j"), Value: []byte("{}")}}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Exec(t.Context(), `INSERT INTO outbox (topic, headers, created_at) VALUES ('t', '[]', now() - interval '2 hours')`); err != nil {
			t.Fatal(err)
		}
		ahead := broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("{}"), Time: hour.Add(-time.Hour), Headers: []broker.Header{{Key: "ce_time", Value: []byte(time.Now().Add(time.Hour).Format(time.RFC3339Nano))}}}
		f := flow()
		about := func(ms int64, want time.Duration) bool {
			return ms >= want.Milliseconds() && ms < (want+time.Minute).Milliseconds()
		}
		if f.Unpublished != 1 || !about(f.UnpublishedMs, 2*time.Hour) || !about(f.UnhandledMs, time.Hour) {
			t.Errorf("an event of 2 h ago in the outbox, one of an hour ago in Kafka: %+v", f)
		}
		if err := client.Produce(t.Context(), []broker.Record{ahead})[0]; err != nil {
			t.Fatal(err)
		}
		if f := flow(); !about(f.UnhandledMs, 2*time.Hour) {
			t.Errorf("an event of an hour to come, that came two hours ago: %+v", f)
		}
	})
}
