package broker

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Ends returns where each partition ends: the offset that its next record will get. A partition of which nobody knows it
// now (it has no leader, or its topic is gone) is left out. It fails where nothing is known of any.
func (c *Client) Ends(ctx context.Context, tps []TopicPartition) (map[TopicPartition]int64, error) {
	ends, errs := c.listOffsets(ctx, latest, readUncommitted, tps)
	for _, err := range errs {
		if len(ends) == 0 {
			return nil, fmt.Errorf("list end offsets: %w", err)
		}
	}
	return ends, nil
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
