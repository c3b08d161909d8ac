package broker

import (
	"context"
	"errors"
	"fmt"
)

// Committed returns every offset that the cluster has of the group, whatever topics they are of; none if it does not
// know the group.
func (c *Client) Committed(ctx context.Context, group string) (map[TopicPartition]int64, error) {
	places, err := c.fetchOffsets(ctx, group, nil)
	if err != nil {
		return nil, err
	}
	out := make(map[TopicPartition]int64, len(places))
	for tp, p := range places {
		if p.offset >= 0 {
			out[tp] = p.offset
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
