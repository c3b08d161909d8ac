package broker_test

import (
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// A session names all partitions once, and from then on those that moved; a broker that has forgotten it is told all
// again, and no record is lost or comes twice.
func TestFetchSession(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		const partitions, keys = 6, 40
		client, topic := open(t, c), c.Topic(t, partitions)
		from := map[broker.TopicPartition]int64{}
		for p := range partitions {
			from[broker.TopicPartition{Topic: topic, Partition: p}] = 0
		}
		var session broker.FetchSession
		seen := map[string]int{}
		read := func(want int) {
			t.Helper()
			deadline := time.Now().Add(30 * time.Second)
			for len(seen) < want && time.Now().Before(deadline) {
				recs, err := session.Fetch(t.Context(), client, from)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range recs {
					seen[string(r.Key)+"="+string(r.Value)]++
				}
			}
			for record, times := range seen {
				if times != 1 {
					t.Errorf("%s was read %d times", record, times)
				}
			}
			if len(seen) != want {
				t.Fatalf("read %d records, want %d", len(seen), want)
			}
		}

		if n := session.Told(from); n != partitions {
			t.Errorf("the first request names %d partitions, want all", n)
		}
		produce(t, client, records(topic, keys, 1))
		read(keys)
		produce(t, client, records(topic, 1, 3)[1:]) // one key's partition
		read(keys + 2)
		if _, err := session.Fetch(t.Context(), client, from); err != nil { // tells the offset that read reached last
			t.Fatal(err)
		}
		if n := session.Told(from); n != 1 {
			t.Errorf("a request with nothing to tell names %d partitions, want the one that leads it to its broker", n)
		}
		session.Forget()
		produce(t, client, records(topic, keys, 5)[3*keys:])
		read(keys + 2 + 2*keys)
	})
}
