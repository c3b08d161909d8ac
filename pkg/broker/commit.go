package broker

import (
	"context"
	"errors"
	"fmt"
)

// CommitFor commits where a group goes on that has no members: one that stands for what a person, or a tool, has dealt
// with. Kafka refuses it while the group has members.
func (c *Client) CommitFor(ctx context.Context, group string, next map[TopicPartition]int64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	failed, err := (&coordinator{client: c, group: group}).commit(ctx, outsider, unmarked(next))
	if err != nil {
		return fmt.Errorf("commit for %s: %w", group, err)
	}
	var errs []error
	for tp, err := range failed {
		errs = append(errs, fmt.Errorf("commit for %s: %s/%d: %w", group, tp.Topic, tp.Partition, err))
	}
	return errors.Join(errs...)
}

// Recommit commits once more where a group without members goes on: Kafka does not forget it for a while then, and
// shows it even where the group has never been. Topics that the cluster does not know are left out.
func (c *Client) Recommit(ctx context.Context, group string, topics ...string) error {
	next, tps, err := c.position(ctx, group, topics...)
	if err != nil || len(next) == 0 {
		return err
	}
	now, err := c.groupOffsets(ctx, group, tps) // right before they are written: whoever goes on meanwhile is not to be set back
	if err != nil {
		return err
	}
	for tp, offset := range now {
		next[tp] = max(next[tp], offset)
	}
	return c.CommitFor(ctx, group, next)
}

// ScanFrom is [Client.Scan] from where a group goes on in the topic: from its beginning where the group has never been.
// A topic that the cluster does not know has no records.
func (c *Client) ScanFrom(ctx context.Context, group, topic string, fn func(Record) error) error {
	from, tps, err := c.position(ctx, group, topic)
	if err != nil {
		return err
	}
	for _, tp := range tps {
		if err := c.scanPartition(ctx, tp, from[tp], fn); err != nil {
			return fmt.Errorf("scan %s/%d: %w", topic, tp.Partition, err)
		}
	}
	return nil
}

// position is where a group goes on in the topics that there are, within what they hold.
func (c *Client) position(ctx context.Context, group string, topics ...string) (map[TopicPartition]int64, []TopicPartition, error) {
	tps, _, err := c.existing(ctx, topics)
	if err != nil || len(tps) == 0 {
		return nil, nil, err
	}
	next, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.committed(ctx, group, tps) })
	if err != nil {
		return nil, nil, fmt.Errorf("look where %s goes on: %w", group, err)
	}
	log, err := patiently(ctx, func() (map[TopicPartition]bounds, error) { return c.boundsOf(ctx, tps) })
	if err != nil {
		return nil, nil, fmt.Errorf("look where %s goes on: %w", group, err)
	}
	for tp, offset := range next {
		next[tp] = log[tp].within(offset)
	}
	return next, tps, nil
}
