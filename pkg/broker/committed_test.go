package broker_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// transactional is another client, which writes in transactions.
func transactional(t *testing.T, c *brokertest.Cluster) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...), kgo.TransactionalID(brokertest.Name(t)), kgo.TransactionTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// write writes records of the values within a transaction that has begun, each in a batch of its own.
func write(t *testing.T, client *kgo.Client, topic string, values ...string) {
	t.Helper()
	for _, v := range values {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte(v)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func begin(t *testing.T, client *kgo.Client) {
	t.Helper()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
}

func endWith(t *testing.T, client *kgo.Client, how kgo.TransactionEndTry) {
	t.Helper()
	if err := client.EndTransaction(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, client *broker.Client, topic string) (values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := client.Scan(ctx, topic, func(r broker.Record) error {
		values = append(values, string(r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return values
}

// A reader gets what transactions have committed, and never what they have aborted. An open one holds it up; what came
// before is to be had.
func TestTransactions(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		tp := broker.TopicPartition{Topic: topic}
		first, second := transactional(t, c), transactional(t, c)
		check := func(want ...string) { // soon: a commit is acknowledged before its markers are written
			t.Helper()
			var got []string
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
				if got = scan(t, client, topic); slices.Equal(got, want) {
					return
				}
			}
			t.Fatalf("read %q, want %q", got, want)
		}

		begin(t, first)
		write(t, first, topic, "a1", "a2")
		check()
		begin(t, second)
		write(t, second, topic, "b1")
		endWith(t, first, kgo.TryCommit)
		write(t, second, topic, "b2")
		check("a1", "a2")
		endWith(t, second, kgo.TryAbort)
		produce(t, client, []broker.Record{{Topic: topic, Key: []byte("k"), Value: []byte("plain")}})
		begin(t, second)
		write(t, second, topic, "c1")
		endWith(t, second, kgo.TryCommit)
		check("a1", "a2", "plain", "c1")

		begin(t, first)
		write(t, first, topic, "d1")
		produce(t, client, []broker.Record{{Topic: topic, Key: []byte("k"), Value: []byte("behind")}})
		check("a1", "a2", "plain", "c1")

		// At the end of what is stable there is nothing to fetch, and no way on.
		var session broker.FetchSession
		from := map[broker.TopicPartition]int64{tp: 0}
		var got int
		for range 10 {
			recs, err := session.Fetch(t.Context(), client, from)
			if err != nil {
				t.Fatal(err)
			}
			got += len(recs)
		}
		held := from[tp]
		if got != 4 {
			t.Errorf("%d records fetched, want 4", got)
		}
		unhandled, err := client.Unhandled(t.Context(), brokertest.Name(t), topic)
		if err != nil || len(unhandled) != 4 {
			t.Errorf("%d records wait for a new group, want 4: %v", len(unhandled), err)
		}

		endWith(t, first, kgo.TryAbort)
		check("a1", "a2", "plain", "c1", "behind")
		begin(t, first)
		write(t, first, topic, "e1")
		endWith(t, first, kgo.TryAbort)
		end := held + 5 // d1, behind, a marker, e1, a marker
		for deadline := time.Now().Add(20 * time.Second); from[tp] < end && time.Now().Before(deadline); {
			if _, err := session.Fetch(t.Context(), client, from); err != nil {
				t.Fatal(err)
			}
		}
		if at, is := from[tp], broker.Ends(t, client, tp); at != end || is != end {
			t.Errorf("the position is %d, and the end %d; want %d", at, is, end)
		}
	})
}

// A batch that fills a response by itself, and whose last records were compacted away, does not stop its reader.
func TestCompactedTailIsPassed(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), brokertest.Name(t)
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: topic, Partitions: 1, Config: map[string]string{
			"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": "100", "min.compaction.lag.ms": "0",
			"max.compaction.lag.ms": "100", "delete.retention.ms": "0",
		}}}); err != nil {
			t.Fatal(err)
		}
		big := make([]byte, 300<<10) // more than a partition's part of a response
		if _, err := rand.Read(big); err != nil {
			t.Fatal(err)
		}
		record := func(key string, value []byte) broker.Record {
			return broker.Record{Topic: topic, Key: []byte(key), Value: value}
		}
		produce(t, client, []broker.Record{record("big", big), record("k1", []byte("old")), record("k2", []byte("old"))}) // one batch
		compacted := false
		deadline := time.Now().Add(100 * time.Second)
		for n := 0; !compacted && time.Now().Before(deadline); n++ {
			produce(t, client, []broker.Record{record("k1", fmt.Append(nil, n)), record("k2", fmt.Append(nil, n))}) // rolls the segment
			brokertest.Compact(c)
			compacted = !slices.Contains(scan(t, client, topic), "old")
		}
		if !compacted {
			t.Fatal("the topic is not compacted")
		}
		values := scan(t, client, topic)
		if len(values) < 3 || len(values[0]) != len(big) || strings.Contains(values[1], "old") {
			t.Errorf("%d records read", len(values))
		}
		from := map[broker.TopicPartition]int64{{Topic: topic}: 1} // behind the big one
		var session broker.FetchSession
		for range 5 {
			if _, err := session.Fetch(t.Context(), client, from); err != nil {
				t.Fatal(err)
			}
		}
		if at := from[broker.TopicPartition{Topic: topic}]; at < 3 {
			t.Errorf("the reader stands at %d, in a batch that ends at 3", at)
		}
	})
}
