package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// Committed returns every offset that the cluster has of the group, whatever topics they are of; none if it does not know
// the group.
func (c *Client) Committed(ctx context.Context, group string) (map[TopicPartition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the offsets of %s: %w", group, err)
	}
	out := map[TopicPartition]int64{}
	for topic, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				return nil, fmt.Errorf("ask for the offset of %s in %s/%d: %w", group, topic, p.Partition, p.Error)
			}
			if p.CommittedOffset >= 0 {
				out[TopicPartition{topic, p.Partition}] = p.CommittedOffset
			}
		}
	}
	return out, nil
}

// ErrGone says that a record is not, or no longer, in its topic.
var ErrGone = errors.New("the topic has it no longer: deleted by its retention, compacted away, or the topic was made anew")

// ReadAt reads the one record at a place in a topic. The error is [ErrGone] if there is none.
func (c *Client) ReadAt(ctx context.Context, topic string, partition int, offset int64) (Record, error) {
	tp := TopicPartition{topic, partition}
	r, err := c.readAt(ctx, tp, offset)
	if err != nil {
		return Record{}, fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
	}
	return r, nil
}

func (c *Client) readAt(ctx context.Context, tp TopicPartition, offset int64) (Record, error) {
	first, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.offsets(ctx, earliest, []TopicPartition{tp}) })
	if err != nil {
		return Record{}, err
	}
	if offset < first[tp] {
		return Record{}, ErrGone
	}
	var found *Record
	err = c.scanPartition(ctx, tp, offset, func(r Record) error {
		if r.Offset == offset {
			found = &r
		}
		return errRead
	})
	switch {
	case found != nil:
		return *found, nil
	case err != nil && !errors.Is(err, errRead):
		return Record{}, err
	}
	return Record{}, ErrGone
}

// errRead ends a scan after its first record.
var errRead = errors.New("read")
