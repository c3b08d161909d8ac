package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// End is where a partition's log ends.
type End struct {
	Offset int64 // the one that its next record will get, or the first one that was lost
	Epoch  int32 // of its leader; [NoEpoch] where the broker does not tell
}

// NoEpoch stands for a leader epoch that is not known.
const NoEpoch = noEpoch

// Ends returns where each partition ends, given the epochs that its leaders had when it was last asked for. A partition
// of which nobody knows it now (it has no leader, or its topic is gone) is left out. It fails where nothing is known of
// any.
//
// A leader of a newer epoch may have begun with a log that was cut, and have taken records of others since. So what is
// returned then is where it began: records of the epoch before are there up to that offset, and lost from there on
// (KIP-320). A leader of an older epoch has another topic of the same name: nothing is left of the one before.
func (c *Client) Ends(ctx context.Context, last map[TopicPartition]int32) (map[TopicPartition]End, error) {
	found, errs := c.listOffsets(ctx, latest, readUncommitted, slices.Collect(maps.Keys(last)))
	for _, err := range errs {
		if len(found) == 0 {
			return nil, fmt.Errorf("list end offsets: %w", err)
		}
	}
	ends := make(map[TopicPartition]End, len(found))
	changed := map[TopicPartition]epochOffset{}
	for tp, end := range found {
		ends[tp] = End{end.offset, end.epoch}
		switch before := last[tp]; {
		case before == noEpoch || end.epoch == noEpoch || end.epoch == before:
		case end.epoch < before:
			ends[tp] = End{0, end.epoch}
		default:
			changed[tp] = epochOffset{epoch: before}
		}
	}
	if len(changed) == 0 {
		return ends, nil
	}
	begun, err := c.begun(ctx, changed, found)
	for tp := range changed {
		if p, ok := begun[tp]; !ok {
			delete(ends, tp) // it is not known how much of it is the same
		} else if p.offset >= 0 { // a broker that keeps no epochs has only its end to tell
			ends[tp] = End{min(p.offset, ends[tp].Offset), ends[tp].Epoch}
		}
	}
	if len(ends) == 0 && err != nil {
		return nil, fmt.Errorf("ask where leaders began: %w", err)
	}
	return ends, nil
}

// begun asks the leaders where the epochs before theirs ended. What a leader does not answer that has another epoch
// than it had just now is left out.
func (c *Client) begun(ctx context.Context, before, now map[TopicPartition]epochOffset) (map[TopicPartition]epochOffset, error) {
	topics := map[string]bool{}
	for tp := range before {
		topics[tp.Topic] = true
	}
	leaders, err := c.leadersOf(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		return nil, err
	}
	ask := map[int]epochQuestion{}
	for tp, last := range before {
		parts := leaders[tp.Topic]
		if tp.Partition >= len(parts) || parts[tp.Partition].id < 0 {
			continue
		}
		l := parts[tp.Partition].id
		if _, ok := ask[l]; !ok {
			ask[l] = newEpochQuestion()
		}
		ask[l].current[tp], ask[l].last[tp] = now[tp].epoch, last
	}
	all, errs := c.allEpochEnds(ctx, ask)
	for _, err := range errs {
		return all, err
	}
	return all, nil
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
