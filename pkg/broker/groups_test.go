package broker_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// The cluster tells its groups, and how far each is: what it has committed counts, and where it has never been all
// there is.
func TestGroupsAndTheirProgress(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 2), brokertest.Name(t)
		var records []broker.Record
		for range 20 {
			records = append(records, broker.Record{Topic: topic, Value: []byte("v")}, broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")})
		}
		for _, err := range client.Produce(t.Context(), records) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if progress, err := client.ProgressOf(t.Context(), group); err != nil || len(progress) > 0 {
			t.Errorf("a group that has committed nothing: %v, %v", progress, err)
		}
		progress, err := client.ProgressOf(t.Context(), group, topic, topic+"-that-is-not-there")
		if diff := cmp.Diff([]broker.Progress{{Topic: topic, Partitions: 2, Lag: 40}}, progress); diff != "" || err != nil {
			t.Errorf("in a topic where it has never been (-want +got):\n%s%v", diff, err)
		}
		ends, err := client.Ends(t.Context(), map[broker.TopicPartition]int32{{Topic: topic, Partition: 0}: broker.NoEpoch, {Topic: topic, Partition: 1}: broker.NoEpoch})
		if err != nil {
			t.Fatal(err)
		}
		first := broker.TopicPartition{Topic: topic, Partition: 0}
		if err := client.CommitFor(t.Context(), group, map[broker.TopicPartition]int64{first: ends[first].Offset}); err != nil {
			t.Fatal(err)
		}
		groups, err := client.Groups(t.Context())
		if err != nil || !slices.Contains(groups, group) {
			t.Errorf("the groups are %v without %s: %v", groups, group, err)
		}
		progress, err = client.ProgressOf(t.Context(), group)
		want := []broker.Progress{{Topic: topic, Partitions: 2, Lag: 40 - ends[first].Offset}}
		if diff := cmp.Diff(want, progress); diff != "" || err != nil {
			t.Errorf("progress (-want +got):\n%s%v", diff, err)
		}
	})
}
