package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
)

// maxPartitionBytes bounds one partition's record batch in a request. Brokers refuse a batch of more than
// message.max.bytes (1 MiB by default); a single larger record goes alone and meets the broker's own answer.
const maxPartitionBytes = 512 << 10

// MaxRecordBytes bounds key, value and headers of one record together: what a topic with Kafka's default of 1 MiB takes, with
// 4 KiB to spare for the batch around it.
const MaxRecordBytes = 1<<20 - 4<<10

// murmur2 is the Java client's partitioner, so that console tools and other languages find a key in the same partition.
var murmur2 = kafka.Murmur2Balancer{}

// Produce writes the records, acknowledged by all in-sync replicas, and returns one error per record: nil means that it
// is durable as the cluster defines it, and its Partition and Offset say where it lies. Records of one partition keep their order, and are all written or all refused.
// An error that is not nil can still have been written (a response that got lost), so consumers deduplicate.
//
// It is safe for concurrent use, but order between two concurrent calls is not defined: who needs order makes one call
// at a time.
func (c *Client) Produce(ctx context.Context, records []Record) []error {
	errs := make([]error, len(records))
	rest := make([]int, len(records))
	for i := range records {
		rest[i] = i
	}
	for len(rest) > 0 {
		requests, later := c.plan(ctx, records, rest, errs)
		var wg sync.WaitGroup
		for _, req := range requests {
			wg.Go(func() { c.send(ctx, records, req, errs) })
		}
		wg.Wait()
		// What did not fit behind a partition's batch follows it, unless that batch failed: order first.
		rest = rest[:0]
		failed := map[TopicPartition]error{}
		for _, req := range requests {
			for tp, idx := range req.parts {
				if err := errs[idx[0]]; err != nil {
					failed[tp] = err
				}
			}
		}
		for _, i := range later {
			tp := TopicPartition{records[i].Topic, records[i].Partition}
			if err, bad := failed[tp]; bad {
				errs[i] = fmt.Errorf("not sent after its predecessor: %w", err)
				continue
			}
			rest = append(rest, i)
		}
	}
	return errs
}

// request is what one broker gets: indexes into the records by partition, in order.
type request struct {
	parts map[TopicPartition][]int
}

// plan chooses partitions and groups records by leader. It sets the error of those that have nowhere to go, and returns
// those that exceed their partition's share of this round as later.
func (c *Client) plan(ctx context.Context, records []Record, rest []int, errs []error) (requests []request, later []int) {
	topics := map[string]bool{}
	for _, i := range rest {
		topics[records[i].Topic] = true
	}
	leaders, err := c.leadersOf(ctx, slices.Collect(maps.Keys(topics))...)
	if err != nil {
		for _, i := range rest {
			errs[i] = fmt.Errorf("find leader of %s: %w", records[i].Topic, err)
		}
		return nil, nil
	}
	ids := map[string][]int{} // of each topic's partitions
	for topic := range topics {
		for id := range leaders[topic] {
			ids[topic] = append(ids[topic], id)
		}
	}
	byLeader := map[int]request{}
	bytes := map[TopicPartition]int{}
	for _, i := range rest {
		r := &records[i]
		parts := leaders[r.Topic]
		if len(parts) == 0 {
			errs[i] = fmt.Errorf("produce to %s: %w", r.Topic, errNoTopic)
			continue
		}
		r.Partition = murmur2.Balance(kafka.Message{Key: r.Key}, ids[r.Topic]...)
		tp := TopicPartition{r.Topic, r.Partition}
		size := len(r.Key) + len(r.Value) + 64
		for _, h := range r.Headers {
			size += len(h.Key) + len(h.Value) + 4
		}
		if before := bytes[tp]; before > 0 && before+size > maxPartitionBytes {
			bytes[tp] = maxPartitionBytes // nothing smaller may overtake
			later = append(later, i)
			continue
		}
		bytes[tp] += size
		leader := parts[r.Partition]
		if leader < 0 {
			errs[i] = fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, kafka.LeaderNotAvailable)
			c.forget(r.Topic)
			continue
		}
		req, ok := byLeader[leader]
		if !ok {
			req = request{parts: map[TopicPartition][]int{}}
			byLeader[leader] = req
		}
		req.parts[tp] = append(req.parts[tp], i)
	}
	return slices.Collect(maps.Values(byLeader)), later
}

func (c *Client) send(ctx context.Context, records []Record, req request, errs []error) {
	topics := map[string]*produce.RequestTopic{}
	for tp, idx := range req.parts {
		t, ok := topics[tp.Topic]
		if !ok {
			t = &produce.RequestTopic{Topic: tp.Topic}
			topics[tp.Topic] = t
		}
		recs := make([]protocol.Record, len(idx))
		for n, i := range idx {
			recs[n] = wireRecord(&records[i])
		}
		t.Partitions = append(t.Partitions, produce.RequestPartition{
			Partition: int32(tp.Partition),
			RecordSet: protocol.RecordSet{Records: protocol.NewRecordReader(recs...)},
		})
	}
	msg := &produce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(requestTimeout.Milliseconds())}
	for _, t := range topics {
		msg.Topics = append(msg.Topics, *t)
	}
	fail := func(tp TopicPartition, err error) {
		for _, i := range req.parts[tp] {
			errs[i] = fmt.Errorf("produce to %s/%d: %w", tp.Topic, tp.Partition, err)
		}
		c.forget(tp.Topic)
	}
	m, err := c.roundTrip(ctx, 2*requestTimeout, msg)
	if err != nil {
		for tp := range req.parts {
			fail(tp, err)
		}
		return
	}
	acked := map[TopicPartition]bool{}
	for _, t := range m.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, int(p.Partition)}
			acked[tp] = true
			if err := codeErr(p.ErrorCode); err != nil {
				if p.ErrorMessage != "" {
					err = fmt.Errorf("%w: %s", err, p.ErrorMessage)
				}
				fail(tp, err)
				continue
			}
			for n, i := range req.parts[tp] {
				records[i].Offset = p.BaseOffset + int64(n)
			}
		}
	}
	for tp := range req.parts {
		if !acked[tp] {
			fail(tp, errors.New("the broker's response does not mention the partition"))
		}
	}
}

func wireRecord(r *Record) protocol.Record {
	headers := make([]protocol.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = protocol.Header{Key: h.Key, Value: h.Value}
	}
	t := r.Time
	if t.IsZero() {
		t = time.Now()
	}
	return protocol.Record{Time: t, Key: protocol.NewBytes(r.Key), Value: protocol.NewBytes(r.Value), Headers: headers}
}
