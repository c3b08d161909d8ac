package broker_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/brokertest"
)

// The oldest record that a group has not committed, in whatever partition it lies.
func TestOldest(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		a, b, group := c.Topic(t, 3), c.Topic(t, 1), brokertest.Name(t)
		first := time.Now().Add(-time.Hour).Truncate(time.Millisecond).UTC()
		oldest := func(want time.Time) {
			t.Helper()
			if got, err := client.Oldest(t.Context(), group, a, b); err != nil || !got.Equal(want) {
				t.Errorf("oldest %s, %v; want %s", got, err, want)
			}
		}
		produce(t, client, []broker.Record{
			{Topic: b, Key: []byte("x"), Time: first.Add(time.Second)}, {Topic: a, Key: []byte("y"), Time: first}, {Topic: a, Key: []byte("z"), Time: first.Add(time.Minute)},
		})
		oldest(first)

		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		consumed := make(chan error)
		go func() {
			consumed <- client.Consume(ctx, broker.GroupConfig{Group: group, Topics: []string{a, b}}, func(ctx context.Context, s *broker.Session) {
				next := map[broker.TopicPartition]int64{}
				for n := 0; n < 3; {
					records, err := s.Poll(ctx, 10)
					if err != nil {
						return
					}
					for _, r := range records {
						n++
						next[broker.TopicPartition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
					}
				}
				if err := s.Commit(next); err != nil {
					t.Error(err)
				}
				stop()
				<-ctx.Done()
			})
		}()
		if err := <-consumed; err != nil {
			t.Fatal(err)
		}
		oldest(time.Time{})
		produce(t, client, []broker.Record{{Topic: a, Key: []byte("y"), Time: first.Add(time.Hour)}})
		oldest(first.Add(time.Hour))
		if gone, err := client.Trimmed(t.Context(), a, b, "no-such-topic"); err != nil || !slices.Equal(gone, []string{"no-such-topic"}) {
			t.Errorf("trimmed: %v, %v; want the topic that is not there", gone, err)
		}
	})
}
