package broker

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// FetchSession is a fetch loop's session, to test it alone.
type FetchSession struct{ fetchSession }

// Forget makes the broker's memory and the session's differ, as after a restart of the broker.
func (s *FetchSession) Forget() { s.id += 1000 }

// Told is how many of the partitions the next request would name.
func (s *FetchSession) Told(from map[TopicPartition]int64) int {
	return len(s.partitions(unmarked(from)))
}

// Fetch fetches once, within a session, and moves from on.
func (s *FetchSession) Fetch(ctx context.Context, c *Client, from map[TopicPartition]int64) ([]Record, error) {
	f, err := c.fetch(ctx, unmarked(from), 20*time.Millisecond, &s.fetchSession)
	maps.Copy(from, f.next)
	return f.records, err
}

// tb is what a test and a property have in common.
type tb interface {
	Helper()
	Fatal(...any)
}

// SetLeaders makes the client take other brokers for the leaders of a topic's partitions, as after a change that it has
// not heard of.
func SetLeaders(t tb, c *Client, topic string, of func(partition, leader int) int) {
	t.Helper()
	ctx := context.Background()
	c.forget(topic)
	known, err := c.leadersOf(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	changed := make([]leader, len(known[topic]))
	for p, l := range known[topic] {
		changed[p] = leader{of(p, l.id), l.epoch}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaders[topic] = changed
}

// LargestRequest is how many bytes of batches the largest request of a call would have, if each was acknowledged.
func LargestRequest(t tb, c *Client, records []Record) (largest int) {
	t.Helper()
	p := production{client: c, records: records, errs: make([]error, len(records))}
	p.assign(context.Background())
	for {
		requests := p.round()
		if len(requests) == 0 {
			return largest
		}
		for _, r := range requests {
			sum := 0
			for _, q := range r {
				sum += q.bytes
				p.settle(context.Background(), q)
			}
			largest = max(largest, sum)
		}
	}
}

// Ends is where a partition ends for a reader of what is committed.
func Ends(t tb, c *Client, tp TopicPartition) int64 {
	t.Helper()
	ends, err := c.offsets(context.Background(), latest, []TopicPartition{tp})
	if err != nil {
		t.Fatal(err)
	}
	return ends[tp]
}

// ReplicationOf is how many replicas a topic has, and how many must have a record.
func ReplicationOf(t tb, c *Client, topic string) (replicas, insync int) {
	t.Helper()
	cluster, err := c.describe(context.Background(), []string{topic})
	if err != nil {
		t.Fatal(err)
	}
	configs, err := c.topicConfigs(context.Background(), []string{topic}, minInsync)
	if err != nil {
		t.Fatal(err)
	}
	return len(cluster.Topics[0].Partitions[0].ReplicaNodes), configs[topic].number(minInsync)
}

// Held is the partitions that a session has, sorted.
func Held(s *Session) []TopicPartition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Keys(s.held), func(a, b TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}

// Committed is what a group has committed in a partition, -1 for nothing.
func Committed(t tb, c *Client, group string, tp TopicPartition) int64 {
	t.Helper()
	out, err := patiently(context.Background(), func() (map[TopicPartition]int64, error) { // the coordinator may be loading
		return c.groupOffsets(context.Background(), group, []TopicPartition{tp})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out[tp]
}

// CommitAt commits for a group without members, with a leader epoch, and tells whether the coordinator took it.
func CommitAt(c *Client, group string, tp TopicPartition, offset int64, epoch int32) bool {
	failed, err := (&coordinator{client: c, group: group}).commit(context.Background(), outsider, map[TopicPartition]epochOffset{tp: {offset, epoch}})
	return err == nil && len(failed) == 0
}

// CommittedEpoch is the leader epoch that a group has committed in a partition.
func CommittedEpoch(t tb, c *Client, group string, tp TopicPartition) int32 {
	t.Helper()
	out, err := patiently(context.Background(), func() (map[TopicPartition]epochOffset, error) {
		return c.groupPlaces(context.Background(), group, []TopicPartition{tp})
	})
	if err != nil {
		t.Fatal(err)
	}
	return out[tp].epoch
}

// Epoch is the leader epoch of a topic's first partition, as a broker says it now.
func Epoch(t tb, c *Client, topic string) int32 {
	t.Helper()
	fresh, err := c.freshLeaders(context.Background(), topic)
	if err != nil || len(fresh[topic]) == 0 {
		return noEpoch
	}
	return fresh[topic][0].epoch
}
