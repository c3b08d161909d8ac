package saga

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// What a member tells the broker: how far the group was, and, where the log is cut off or another, that it starts from
// nothing.
func TestFloorsOfAMember(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, cluster *brokertest.Cluster) {
		client, err := broker.Open(broker.Config{Brokers: cluster.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		first, second, anew := cluster.Topic(t, 1), cluster.Topic(t, 1), cluster.Topic(t, 1)
		var records []broker.Record
		for range 10 {
			for _, topic := range []string{first, anew} {
				records = append(records, broker.Record{Topic: topic, Value: []byte("{}")})
			}
		}
		if err := cmp.Or(client.Produce(t.Context(), records)...); err != nil {
			t.Fatal(err)
		}
		testFloors(t, client, first, second, anew)
	})
}

func testFloors(t *testing.T, client *broker.Client, first, second, anew string) {
	db := pgtest.New(t, "inbox only", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, inbox.Migration()) })
	cfg := Config{DB: db, Broker: client, Log: slog.New(slog.DiscardHandler)}
	cfg.defaults()
	var routes []Route
	for _, topic := range []string{first, second, anew} {
		routes = append(routes, On(NewTopic[struct{}](topic), func(context.Context, pgx.Tx, Msg[struct{}]) ([]Out, error) { return nil, nil }))
	}
	c := newConsumer("svc", "svc", routes, cfg)
	note := func(topic string, next int64) {
		t.Helper()
		if err := inbox.Note(t.Context(), db, "svc", []inbox.Floor{{Topic: topic, Next: next}}); err != nil {
			t.Fatal(err)
		}
	}
	note(first, 7)
	note(second, 9) // has nothing there: the client finds that out when it begins
	note(anew, 5)
	note("a route that is gone", 5)
	if _, err := db.Exec(t.Context(), `UPDATE inbox_floor SET noted_at = now() - interval '2 days' WHERE topic = $1`, anew); err != nil {
		t.Fatal(err)
	}
	a, b := broker.TopicPartition{Topic: first}, broker.TopicPartition{Topic: second}
	want := func(want map[broker.TopicPartition]int64) {
		t.Helper()
		got, err := c.floor(t.Context())
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("floors %v, %v, want %v", got, err, want)
		}
	}
	for range 2 {
		want(map[broker.TopicPartition]int64{a: 7, b: 9})
	}
	old := func(offset int64) bool {
		t.Helper()
		at := time.Now().Add(-30 * 24 * time.Hour)
		left, err := c.pending(t.Context(), []*item{c.item(broker.Record{Topic: first, Offset: offset, Time: at, Value: []byte("{}")})})
		if err != nil {
			t.Fatal(err)
		}
		return len(left) == 0
	}
	if !old(1) || !old(6) || old(7) {
		t.Error("the floor of 7 does not hold")
	}
	if err := c.truncated(t.Context(), a, 7, 3); err != nil {
		t.Fatal(err)
	}
	want(map[broker.TopicPartition]int64{b: 9})
	if old(8) || old(1) {
		t.Error("a message of the new topic is taken for one of the old")
	}
	// A floor that rose meanwhile is known when the partition goes back.
	note(first, 3)
	if old(5) || !old(2) {
		t.Error("the floor was not read again when the offsets went back")
	}
	// One that waits for a retry stays, wherever the floor is by then.
	parked := c.item(broker.Record{Topic: second, Offset: 1, Time: time.Now().Add(-30 * 24 * time.Hour), Value: []byte("{}")})
	parked.judged = true
	if left, err := c.pending(t.Context(), []*item{parked}); err != nil || len(left) != 1 {
		t.Errorf("a message that waited was skipped, %v", err)
	}
}
