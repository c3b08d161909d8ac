package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
)

// kafka-go sends a request for each partition; this one goes to a broker with all that it leads. It takes the place of
// kafka-go's in the process: kafka.Client.ListOffsets cannot be used beside it.
func init() { protocol.Register(&listRequest{}, &listoffsets.Response{}) }

type listRequest struct {
	toBroker       `kafka:"-"`
	ReplicaID      int32                      `kafka:"min=v1,max=v5"`
	IsolationLevel int8                       `kafka:"min=v2,max=v5"`
	Topics         []listoffsets.RequestTopic `kafka:"min=v1,max=v5"`
}

func (*listRequest) ApiKey() protocol.ApiKey { return protocol.ListOffsets }

// offsetTime is a time in milliseconds, or a special one, in a ListOffsets request.
type offsetTime int64

const (
	earliest offsetTime = -2
	latest   offsetTime = -1
)

// since asks for the first record that was written at t or later. The answer is -1 where there is none.
func since(t time.Time) offsetTime { return offsetTime(t.UnixMilli()) }

// offsets resolves the first or the next offset of each partition. The next is that of the first record that an open
// transaction has written, if there is one: what follows is not to be had yet.
func (c *Client) offsets(ctx context.Context, at offsetTime, tps []TopicPartition) (map[TopicPartition]int64, error) {
	found, errs := c.listOffsets(ctx, at, readCommitted, tps)
	for tp, err := range errs {
		return nil, fmt.Errorf("list offsets of %s/%d: %w", tp.Topic, tp.Partition, err)
	}
	out := make(map[TopicPartition]int64, len(found))
	for tp, p := range found {
		out[tp] = p.offset
	}
	return out, nil
}

// listOffsets is offsets with the errors of single partitions apart: one request to each broker, all at once. The epoch
// is that of the record at the offset, and of the latest offset the leader's.
func (c *Client) listOffsets(ctx context.Context, at offsetTime, isolation int8, tps []TopicPartition) (map[TopicPartition]epochOffset, map[TopicPartition]error) {
	out, errs := map[TopicPartition]epochOffset{}, map[TopicPartition]error{}
	var topics []string
	for _, tp := range tps {
		topics = append(topics, tp.Topic)
	}
	leaders, err := c.leadersOf(ctx, topics...)
	byLeader := map[int][]TopicPartition{}
	for _, tp := range tps {
		parts := leaders[tp.Topic]
		switch {
		case err != nil:
			errs[tp] = err
		case tp.Partition >= len(parts):
			errs[tp] = kafka.UnknownTopicOrPartition
		case parts[tp.Partition].id < 0:
			errs[tp] = kafka.LeaderNotAvailable
		default:
			l := parts[tp.Partition].id
			byLeader[l] = append(byLeader[l], tp)
		}
	}
	var asking sync.WaitGroup
	var mu sync.Mutex
	for leader, led := range byLeader {
		asking.Go(func() {
			got, failed := c.listFrom(ctx, leader, at, isolation, led)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(out, got)
			maps.Copy(errs, failed)
		})
	}
	asking.Wait()
	if len(errs) > 0 {
		c.forget(topics...)
	}
	return out, errs
}

func (c *Client) listFrom(ctx context.Context, leader int, at offsetTime, isolation int8, tps []TopicPartition) (
	map[TopicPartition]epochOffset, map[TopicPartition]error) {
	out, errs := map[TopicPartition]epochOffset{}, map[TopicPartition]error{}
	req := &listRequest{ReplicaID: -1, IsolationLevel: isolation}
	req.send(int32(leader))
	for t, parts := range perTopic(slices.Values(tps), func(tp TopicPartition) listoffsets.RequestPartition {
		return listoffsets.RequestPartition{Partition: int32(tp.Partition), CurrentLeaderEpoch: -1, Timestamp: int64(at)}
	}) {
		req.Topics = append(req.Topics, listoffsets.RequestTopic{Topic: t, Partitions: parts})
	}
	m, err := c.ask(ctx, requestTimeout, req)
	if err != nil {
		for _, tp := range tps {
			errs[tp] = err
		}
		return nil, errs
	}
	for _, t := range m.(*listoffsets.Response).Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, int(p.Partition)}
			if err := codeErr(p.ErrorCode); err != nil {
				errs[tp] = err
			} else {
				out[tp] = epochOffset{p.Offset, p.LeaderEpoch}
			}
		}
	}
	return out, errs
}

// bounds is where a partition begins and ends.
type bounds struct{ first, end int64 }

// within moves an offset to the nearest one that there is.
func (b bounds) within(offset int64) int64 { return min(max(offset, b.first), b.end) }

// boundsOf asks where partitions begin and end.
func (c *Client) boundsOf(ctx context.Context, tps []TopicPartition) (map[TopicPartition]bounds, error) {
	first, err := c.offsets(ctx, earliest, tps)
	if err != nil {
		return nil, err
	}
	end, err := c.offsets(ctx, latest, tps)
	if err != nil {
		return nil, err
	}
	out := make(map[TopicPartition]bounds, len(tps))
	for _, tp := range tps {
		out[tp] = bounds{first[tp], max(first[tp], end[tp])}
	}
	return out, nil
}

// partitionCounts is how many partitions each topic has that the cluster knows.
func (c *Client) partitionCounts(ctx context.Context, topics []string) (map[string]int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c.forget(topics...)
	leaders, err := c.leadersOf(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look for the topics' partitions: %w", err)
	}
	out := map[string]int{}
	for _, t := range topics {
		if n := len(leaders[t]); n > 0 {
			out[t] = n
		}
	}
	return out, nil
}
