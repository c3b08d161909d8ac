package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetfetch"
)

// partitionsOf lists every partition of the topics, as many as there are by now. A topic that the cluster does not know
// is an error.
func (c *Client) partitionsOf(ctx context.Context, topics []string) ([]TopicPartition, map[string][]leader, error) {
	tps, leaders, err := c.existing(ctx, topics)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range topics {
		if len(leaders[t]) == 0 {
			return nil, nil, fmt.Errorf("%s: %w", t, errNoTopic)
		}
	}
	return tps, leaders, nil
}

// existing is partitionsOf without the topics that the cluster does not know.
func (c *Client) existing(ctx context.Context, topics []string) ([]TopicPartition, map[string][]leader, error) {
	c.forget(topics...)
	leaders, err := c.leadersOf(ctx, topics...)
	if err != nil {
		return nil, nil, fmt.Errorf("look for the partitions of %s: %w", strings.Join(topics, ", "), err)
	}
	var tps []TopicPartition
	for _, t := range topics {
		for p := range leaders[t] {
			tps = append(tps, TopicPartition{t, p})
		}
	}
	return tps, leaders, nil
}

// Trimmed tells of which of the topics the beginning is gone: deleted by retention, so that reading them gives no
// longer all there was. Of a topic that the cluster does not know, all is gone.
func (c *Client) Trimmed(ctx context.Context, topics ...string) ([]string, error) {
	var gone []string
	for _, t := range topics {
		tps, _, err := c.existing(ctx, []string{t})
		if err != nil {
			return nil, err
		}
		if len(tps) == 0 {
			gone = append(gone, t)
			continue
		}
		first, err := c.offsets(ctx, earliest, tps)
		if err != nil {
			return nil, err
		}
		for _, offset := range first {
			if offset > 0 {
				gone = append(gone, t)
				break
			}
		}
	}
	return gone, nil
}

// Oldest returns when the oldest record was written that the group has not committed, over all partitions of the
// topics; zero when it has committed all. See [Client.Unhandled].
func (c *Client) Oldest(ctx context.Context, group string, topics ...string) (at time.Time, err error) {
	records, err := c.Unhandled(ctx, group, topics...)
	for _, r := range records {
		if at.IsZero() || r.Time.Before(at) {
			at = r.Time
		}
	}
	return at, err
}

// Unhandled returns the first records that the group has not committed: at least one of each partition in which there
// are any. It costs two requests while nothing waits, and a few more for each leader of a partition in which something
// does. An offset below the start of its partition counts as the start (retention has passed the group), one above the
// end as the end.
func (c *Client) Unhandled(ctx context.Context, group string, topics ...string) ([]Record, error) {
	records, err := c.unhandled(ctx, group, topics)
	if err != nil {
		return nil, fmt.Errorf("look for what %s has not handled: %w", group, err)
	}
	return records, nil
}

func (c *Client) unhandled(ctx context.Context, group string, topics []string) (records []Record, err error) {
	tps, leaders, err := c.partitionsOf(ctx, topics)
	if err != nil {
		return nil, err
	}
	ends, err := c.offsets(ctx, latest, tps)
	if err != nil {
		return nil, err
	}
	committed, err := c.committed(ctx, group, tps)
	if err != nil {
		return nil, err
	}
	waiting := slices.DeleteFunc(tps, func(tp TopicPartition) bool { return committed[tp] >= ends[tp] })
	if len(waiting) == 0 {
		return nil, nil
	}
	log, err := c.boundsOf(ctx, waiting)
	if err != nil {
		return nil, err
	}
	byLeader := map[int]map[TopicPartition]int64{}
	for _, tp := range waiting {
		from := log[tp].within(committed[tp])
		if from >= ends[tp] {
			continue // all that was not committed was deleted
		}
		l := leaders[tp.Topic][tp.Partition].id
		if byLeader[l] == nil {
			byLeader[l] = map[TopicPartition]int64{}
		}
		byLeader[l][tp] = from
	}
	for _, from := range byLeader {
		first, err := c.firstOf(ctx, from)
		if err != nil {
			return nil, err
		}
		records = append(records, first...)
	}
	return records, nil
}

// firstOf returns the first records from some offsets on, in partitions with one leader. A response does not hold more
// than so many bytes: a partition that has no place in it is asked for again.
func (c *Client) firstOf(ctx context.Context, from map[TopicPartition]int64) (records []Record, err error) {
	for len(from) > 0 {
		f, err := c.fetch(ctx, unmarked(from), 0, nil)
		if err != nil {
			return nil, err
		}
		for tp, err := range f.errs {
			return nil, fmt.Errorf("%s/%d: %w", tp.Topic, tp.Partition, err)
		}
		records = append(records, f.records...)
		answered := false
		for tp, next := range f.next {
			if next > from[tp] { // or markers of transactions, which are nobody's
				delete(from, tp)
				answered = true
			}
		}
		if !answered { // deleted by retention since their ends were looked up
			break
		}
	}
	return records, nil
}

// committed returns where the group goes on in each partition: at the first record that there is where it has never
// been. The offset may lie outside of what the partition holds by now.
func (c *Client) committed(ctx context.Context, group string, tps []TopicPartition) (map[TopicPartition]int64, error) {
	out, err := c.groupOffsets(ctx, group, tps)
	if err != nil {
		return nil, err
	}
	var never []TopicPartition
	for tp, offset := range out {
		if offset < 0 {
			never = append(never, tp)
		}
	}
	if len(never) > 0 {
		first, err := c.offsets(ctx, earliest, never)
		if err != nil {
			return nil, err
		}
		maps.Copy(out, first)
	}
	return out, nil
}

// groupOffsets returns what the group has committed, -1 where it has nothing.
func (c *Client) groupOffsets(ctx context.Context, group string, tps []TopicPartition) (map[TopicPartition]int64, error) {
	places, err := c.groupPlaces(ctx, group, tps)
	out := make(map[TopicPartition]int64, len(places))
	for tp, p := range places {
		out[tp] = p.offset
	}
	return out, err
}

// groupPlaces is groupOffsets with the leader epochs that were committed.
func (c *Client) groupPlaces(ctx context.Context, group string, tps []TopicPartition) (map[TopicPartition]epochOffset, error) {
	topics := []offsetfetch.RequestTopic{}
	for t, parts := range perTopic(slices.Values(tps), func(tp TopicPartition) int32 { return int32(tp.Partition) }) {
		topics = append(topics, offsetfetch.RequestTopic{Name: t, PartitionIndexes: parts})
	}
	places, err := c.fetchOffsets(ctx, group, topics)
	if err != nil {
		return nil, err
	}
	for _, tp := range tps {
		if _, known := places[tp]; !known {
			places[tp] = epochOffset{-1, noEpoch}
		}
	}
	return places, nil
}

// fetchOffsets asks for what a group has committed in topics; nil: in all. A partition in which it has nothing has the
// offset -1, and a group that the cluster does not know has no partitions.
func (c *Client) fetchOffsets(ctx context.Context, group string, topics []offsetfetch.RequestTopic) (map[TopicPartition]epochOffset, error) {
	m, err := c.ask(ctx, requestTimeout, &offsetfetch.Request{GroupID: group, Topics: topics})
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of %s: %w", group, err)
	}
	res, out := m.(*offsetfetch.Response), map[TopicPartition]epochOffset{}
	err = codeErr(res.ErrorCode)
	if errors.Is(err, kafka.GroupIdNotFound) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of %s: %w", group, err)
	}
	for _, t := range res.Topics {
		for _, p := range t.Partitions {
			if err := codeErr(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("fetch offsets of %s: %s/%d: %w", group, t.Name, p.PartitionIndex, err)
			}
			out[TopicPartition{t.Name, int(p.PartitionIndex)}] = epochOffset{p.CommittedOffset, p.ComittedLeaderEpoch}
		}
	}
	return out, nil
}
