package broker

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// Ends returns where each partition ends: the offset that its next record will get. A partition of which nobody knows it
// now (it has no leader, or its topic is gone) is left out. It fails where the cluster does not answer at all.
func (c *Client) Ends(ctx context.Context, tps []TopicPartition) (map[TopicPartition]int64, error) {
	topics := map[string][]listoffsets.RequestPartition{}
	for _, tp := range tps {
		topics[tp.Topic] = append(topics[tp.Topic], listoffsets.RequestPartition{Partition: int32(tp.Partition), CurrentLeaderEpoch: -1, Timestamp: int64(latest)})
	}
	req := &listoffsets.Request{ReplicaID: -1}
	for t, parts := range topics {
		req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: t, Partitions: parts})
	}
	m, err := c.ask(ctx, requestTimeout, req)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	out := make(map[TopicPartition]int64, len(tps))
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Offset >= 0 {
				out[TopicPartition{t.Topic, int(p.Partition)}] = p.Offset
			}
		}
	}
	return out, nil
}

// Partitions is how many partitions a topic has, 0 where the cluster does not know it.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	leaders, err := c.leadersOf(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("look for the partitions of %s: %w", topic, err)
	}
	return len(leaders[topic]), nil
}

// PartitionOf is the partition, of so many, that a record with this key goes to. Without a key it can go to any.
func PartitionOf(key []byte, partitions int) int {
	ids := make([]int, partitions)
	for i := range ids {
		ids[i] = i
	}
	return murmur2.Balance(kafka.Message{Key: key}, ids...)
}
