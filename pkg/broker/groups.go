package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
)

// Groups lists the consumer groups that the cluster knows, by name: those that have members, and those that have
// committed an offset which Kafka has not forgotten.
func (c *Client) Groups(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := c.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, fmt.Errorf("list consumer groups: %w", err)
	}
	var names []string
	for _, g := range res.Groups {
		names = append(names, g.GroupID)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Progress is how far a consumer group has come in a topic.
type Progress struct {
	Topic      string
	Partitions int
	Lag        int64 // records that the group has not committed; in a partition where it has never been, all there are
}

// ProgressOf tells how far a group has come in each topic of which it has committed anything, and in those that are
// given, sorted by topic. Topics that the cluster does not have are left out.
func (c *Client) ProgressOf(ctx context.Context, group string, given ...string) ([]Progress, error) {
	committed, err := c.Committed(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("look how far %s is: %w", group, err)
	}
	topics := map[string]bool{}
	for _, t := range given {
		topics[t] = true
	}
	for tp := range committed {
		topics[tp.Topic] = true
	}
	if len(topics) == 0 {
		return nil, nil
	}
	tps, _, err := c.existing(ctx, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return nil, err
	}
	bounds, err := c.boundsOf(ctx, tps)
	if err != nil {
		return nil, fmt.Errorf("look how far %s is: %w", group, err)
	}
	var all []Progress
	for _, tp := range tps { // by topic
		if n := len(all); n == 0 || all[n-1].Topic != tp.Topic {
			all = append(all, Progress{Topic: tp.Topic})
		}
		p := &all[len(all)-1]
		p.Partitions++
		from, known := committed[tp]
		if !known {
			from = bounds[tp].first
		}
		p.Lag += bounds[tp].end - bounds[tp].within(from)
	}
	return all, nil
}
