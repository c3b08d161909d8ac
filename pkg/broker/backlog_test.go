package broker_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
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
					polled, err := s.Poll(ctx, 10)
					if err != nil {
						return
					}
					for _, r := range polled.Records {
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

// Every partition is looked at, also when more waits than one response holds.
func TestOldestOfMany(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		const partitions = 16 // of 250 KiB each: two responses at least
		topic, written := c.Topic(t, partitions), time.Now().Add(-time.Hour).Truncate(time.Millisecond).UTC()
		where := map[int][]byte{} // a key for each partition
		for i := 0; len(where) < partitions; i++ {
			key := fmt.Appendf(nil, "key-%d", i)
			produce(t, client, []broker.Record{{Topic: topic, Key: key}})
			if err := client.ScanFrom(t.Context(), "nobody", topic, func(r broker.Record) error {
				where[r.Partition] = r.Key
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		ends := map[broker.TopicPartition]int64{}
		if err := client.Scan(t.Context(), topic, func(r broker.Record) error {
			ends[broker.TopicPartition{Topic: topic, Partition: r.Partition}] = r.Offset + 1
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for oldest := range partitions { // each in turn: the order in a response is the broker's
			group := brokertest.Name(t)
			if err := client.CommitFor(t.Context(), group, ends); err != nil {
				t.Fatal(err)
			}
			var records []broker.Record
			for p, key := range where {
				at := written
				if p == oldest {
					at = written.Add(-time.Duration(oldest+1) * time.Minute)
				}
				records = append(records, broker.Record{Topic: topic, Key: key, Value: make([]byte, 250<<10), Time: at})
			}
			produce(t, client, records)
			for tp := range ends {
				ends[tp]++
			}
			want := written.Add(-time.Duration(oldest+1) * time.Minute)
			if got, err := client.Oldest(t.Context(), group, topic); err != nil || !got.Equal(want) {
				t.Errorf("the oldest waits in partition %d: %s, %v; want %s", oldest, got, err, want)
			}
		}
	})
}
