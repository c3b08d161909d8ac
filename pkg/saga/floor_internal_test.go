package saga

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/pgtest"
)

// What a member tells the broker: how far the group was, and, where the log ends before that, that it starts from nothing.
func TestFloorsOfAMember(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "inbox only", func(ctx context.Context, pool *pgxpool.Pool) error { return pg.Migrate(ctx, pool, inbox.Migration()) })
	cfg := Config{DB: db, Log: slog.New(slog.DiscardHandler)}
	cfg.defaults()
	c := newConsumer("svc", "svc", nil, cfg)
	if err := inbox.Note(t.Context(), db, "svc", []inbox.Floor{{Topic: "a", Partition: 0, Next: 7}, {Topic: "b", Partition: 3, Next: 9}}); err != nil {
		t.Fatal(err)
	}
	a, b := broker.TopicPartition{Topic: "a"}, broker.TopicPartition{Topic: "b", Partition: 3}
	want := func(want map[broker.TopicPartition]int64) {
		t.Helper()
		got, err := c.floor(t.Context())
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("floors %v, %v, want %v", got, err, want)
		}
	}
	want(map[broker.TopicPartition]int64{a: 7, b: 9})
	old := func(offset int64) bool {
		t.Helper()
		at := time.Now().Add(-30 * 24 * time.Hour)
		left, err := c.pending(t.Context(), []*item{c.item(broker.Record{Topic: "a", Offset: offset, Time: at, Value: []byte("{}")})})
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
	if err := inbox.Note(t.Context(), db, "svc", []inbox.Floor{{Topic: "a", Partition: 0, Next: 3}}); err != nil {
		t.Fatal(err)
	}
	if old(5) || !old(2) {
		t.Error("the floor was not read again when the offsets went back")
	}
	// One that waits for a retry stays, wherever the floor is by then.
	parked := c.item(broker.Record{Topic: "b", Partition: 3, Offset: 1, Time: time.Now().Add(-30 * 24 * time.Hour), Value: []byte("{}")})
	parked.settled = true
	if left, err := c.pending(t.Context(), []*item{parked}); err != nil || len(left) != 1 {
		t.Errorf("a message that waited was skipped, %v", err)
	}
}
