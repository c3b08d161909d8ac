package broker_test

import (
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// Where a log ends is asked for with the epoch of its leader of before: then it ends where a new leader began, whatever
// it has taken since.
func TestEndsOfAnEarlierEpoch(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		tp := broker.TopicPartition{Topic: topic}
		end := func(last int32) (end broker.End) {
			t.Helper()
			eventually(t, 20*time.Second, "the end is known", func() bool {
				ends, err := client.Ends(t.Context(), map[broker.TopicPartition]int32{tp: last})
				end = ends[tp]
				_, known := ends[tp]
				return err == nil && known
			})
			return end
		}
		putRange(t, client, topic, "old", 0, 3)
		first := end(broker.NoEpoch)
		if first.Offset != 3 || first.Epoch == broker.NoEpoch {
			t.Fatalf("it ends at %+v", first)
		}
		newEpoch(t, c, client, topic)
		putRange(t, client, topic, "new", 3, 5)
		second := end(broker.NoEpoch)
		if second.Offset != 5 || second.Epoch <= first.Epoch {
			t.Errorf("after another leader it ends at %+v", second)
		}
		if was := end(first.Epoch); was != (broker.End{Offset: 3, Epoch: second.Epoch}) {
			t.Errorf("the log of epoch %d ends at %+v", first.Epoch, was)
		}
		if is := end(second.Epoch); is != second {
			t.Errorf("the log of epoch %d ends at %+v, want %+v", second.Epoch, is, second)
		}
		c.Remake(t, topic, 1)
		putRange(t, client, topic, "another", 0, 9)
		if anew := end(second.Epoch); anew.Offset != 0 {
			t.Errorf("of the topic of before there is something up to %+v", anew)
		}
	})
}
