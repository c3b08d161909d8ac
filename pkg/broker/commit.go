package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
)

// CommitFor commits where a group goes on that has no members: one that stands for what a person, or a tool, has dealt with. Kafka refuses it while
// the group has members.
func (c *Client) CommitFor(ctx context.Context, group string, next map[TopicPartition]int64) error {
	req := &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{}}
	for tp, offset := range next {
		req.Topics[tp.Topic] = append(req.Topics[tp.Topic], kafka.OffsetCommit{Partition: tp.Partition, Offset: offset})
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.OffsetCommit(ctx, req)
	if err != nil {
		return fmt.Errorf("commit for %s: %w", group, err)
	}
	var errs []error
	for topic, parts := range res.Topics {
		for _, p := range parts {
			if p.Error != nil {
				errs = append(errs, fmt.Errorf("commit for %s: %s/%d: %w", group, topic, p.Partition, p.Error))
			}
		}
	}
	return errors.Join(errs...)
}

// Recommit commits once more where a group without members goes on: Kafka does not forget it for a while then, and shows it even where the group has never
// been. Topics that the cluster does not know are left out.
func (c *Client) Recommit(ctx context.Context, group string, topics ...string) error {
	c.forget(topics...)
	leaders, err := c.leadersOf(ctx, topics...)
	if err != nil {
		return fmt.Errorf("commit for %s again: %w", group, err)
	}
	var tps []TopicPartition
	for _, t := range topics {
		for p := range leaders[t] {
			tps = append(tps, TopicPartition{t, p})
		}
	}
	if len(tps) == 0 {
		return nil
	}
	next, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.committed(ctx, group, tps) })
	if err != nil {
		return fmt.Errorf("commit for %s again: %w", group, err)
	}
	return c.CommitFor(ctx, group, next)
}

// ScanFrom is [Client.Scan] from where a group goes on in the topic: from its beginning where the group has never been.
func (c *Client) ScanFrom(ctx context.Context, group, topic string, fn func(Record) error) error {
	tps, _, err := c.partitionsOf(ctx, []string{topic})
	if errors.Is(err, errNoTopic) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	committed, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.committed(ctx, group, tps) })
	if err != nil {
		return fmt.Errorf("scan %s from where %s goes on: %w", topic, group, err)
	}
	for _, tp := range tps {
		if err := c.scanPartition(ctx, tp, committed[tp], fn); err != nil {
			return fmt.Errorf("scan %s/%d: %w", topic, tp.Partition, err)
		}
	}
	return nil
}
