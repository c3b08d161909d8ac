package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/consumer"
)

// claim is what members tell the leader beside their topics. It travels as user data, which every implementation passes
// over, where owned partitions in the subscription itself would need a version that older members do not read.
type claim struct {
	Generation int32                     `kafka:"min=v0,max=v0"`
	Owned      []consumer.TopicPartition `kafka:"min=v0,max=v0"`
}

// sharedOut is what the leader tells the members beside their partitions: of how many it knew.
type sharedOut struct {
	Topics []topicCount `kafka:"min=v0,max=v0"`
}

type topicCount struct {
	Name       string `kafka:"min=v0,max=v0"`
	Partitions int32  `kafka:"min=v0,max=v0"`
}

// subscription is this member's topics and what it has.
func (m *member) subscription() ([]byte, error) {
	generation, owned := m.s.claims()
	data, err := protocol.Marshal(0, claim{generation, byTopic(owned)})
	if err != nil {
		return nil, fmt.Errorf("encode the subscription: %w", err)
	}
	out, err := protocol.Marshal(0, consumer.Subscription{Topics: m.cfg.Topics, UserData: data})
	if err != nil {
		return nil, fmt.Errorf("encode the subscription: %w", err)
	}
	return out, nil
}

// byTopic names the topics in order: what two members say of the same partitions is the same.
func byTopic(tps []TopicPartition) []consumer.TopicPartition {
	topics := perTopic(slices.Values(tps), func(tp TopicPartition) int32 { return int32(tp.Partition) })
	out := make([]consumer.TopicPartition, 0, len(topics))
	for _, t := range slices.Sorted(maps.Keys(topics)) {
		out = append(out, consumer.TopicPartition{Topic: t, Partitions: topics[t]})
	}
	return out
}

func flat(topics []consumer.TopicPartition) (out []TopicPartition) {
	for _, t := range topics {
		for _, p := range t.Partitions {
			out = append(out, TopicPartition{t.Topic, int(p)})
		}
	}
	return out
}

// lead shares the partitions out. A topic that the cluster does not know has none.
func (m *member) lead(ctx context.Context, members []joinMember) ([]syncAssignment, error) {
	subscribers := make([]subscriber, len(members))
	topics := map[string]bool{}
	for i, j := range members {
		var sub consumer.Subscription
		if err := protocol.Unmarshal(j.Metadata, 0, &sub); err != nil {
			return nil, fmt.Errorf("decode the subscription of %s: %w", j.MemberID, err)
		}
		var c claim
		if protocol.Unmarshal(sub.UserData, 0, &c) != nil {
			c = claim{} // somebody else's user data
		}
		s := subscriber{id: j.MemberID, rank: j.GroupInstanceID, topics: sub.Topics, owned: flat(c.Owned), generation: c.Generation}
		if s.rank == "" {
			s.rank = s.id
		}
		subscribers[i] = s
		for _, t := range sub.Topics {
			topics[t] = true
		}
	}
	counts, err := m.client.partitionCounts(ctx, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return nil, err
	}
	to := assign(subscribers, counts)
	withhold(to, subscribers)
	var shared sharedOut
	for _, t := range slices.Sorted(maps.Keys(counts)) {
		shared.Topics = append(shared.Topics, topicCount{t, int32(counts[t])})
	}
	data, err := protocol.Marshal(0, shared)
	if err != nil {
		return nil, fmt.Errorf("encode the assignment: %w", err)
	}
	var out []syncAssignment
	for id, tps := range to {
		part, err := protocol.Marshal(0, consumer.Assignment{AssignedPartitions: byTopic(tps), UserData: data})
		if err != nil {
			return nil, fmt.Errorf("encode the assignment: %w", err)
		}
		out = append(out, syncAssignment{id, part})
	}
	return out, nil
}

// read decodes what the leader has assigned, and notes how many partitions it knew of. A leader of another
// implementation does not say.
func (m *member) read(ctx context.Context, assignment []byte) ([]TopicPartition, error) {
	if len(assignment) == 0 {
		return nil, nil
	}
	var a consumer.Assignment
	if err := protocol.Unmarshal(assignment, 0, &a); err != nil {
		return nil, fmt.Errorf("decode the assignment: %w", err)
	}
	m.counts = nil
	var shared sharedOut
	if len(a.UserData) > 0 && protocol.Unmarshal(a.UserData, 0, &shared) == nil {
		m.counts = map[string]int{}
		for _, t := range shared.Topics {
			m.counts[t.Name] = int(t.Partitions)
		}
	} else if counts, err := m.client.partitionCounts(ctx, m.cfg.Topics); err == nil {
		m.counts = counts
	}
	return flat(a.AssignedPartitions), nil
}
