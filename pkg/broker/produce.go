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

// MaxRecordBytes is how many bytes a record's key, value and headers may have together to go into any topic with
// Kafka's default settings: 1 MiB less 4 KiB for the batch around it. A topic with another max.message.bytes takes more
// or less.
const MaxRecordBytes = 1044480

const (
	// maxPartitionBytes bounds one partition's batch in a request. A larger record goes alone and meets the broker's
	// own answer.
	maxPartitionBytes = 512 << 10

	// maxRequestBytes bounds a request with the batches of all partitions. Brokers close the connection on one of more
	// than socket.request.max.bytes, 100 MiB by default.
	maxRequestBytes = 32 << 20

	// maxSingleBytes bounds a record that goes alone. It leaves room in the brokers' default of 100 MiB for what is
	// around it.
	maxSingleBytes = 100<<20 - 64<<10
)

// ErrPredecessor is the error of a record that was not sent because an earlier one of its partition was not
// acknowledged.
var ErrPredecessor = errors.New("not sent after its predecessor")

// ErrTooLarge is what a [TooLargeError] is, for errors.Is.
var ErrTooLarge = errors.New("record too large")

// TooLargeError says that a record is larger than its topic takes, however often it is sent. Others of its partition
// are refused with [ErrPredecessor], and go out without it.
type TooLargeError struct {
	Topic string
	Size  int // bytes, as a batch of one
	Limit int // the topic's max.message.bytes; 0: not known
}

func (e *TooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("record too large: %d bytes, more than topic %s takes", e.Size, e.Topic)
	}
	return fmt.Sprintf("record too large: %d bytes, topic %s takes %d", e.Size, e.Topic, e.Limit)
}

// Is makes errors.Is(err, ErrTooLarge) true.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// murmur2 is the Java client's partitioner, so that console tools and other languages find a key in the same partition.
var murmur2 = kafka.Murmur2Balancer{}

// Produce writes the records, acknowledged by all in-sync replicas, and returns one error per record: nil means that it
// is durable as the cluster defines it. It sets Partition and Offset of each acknowledged record in the slice.
//
// Records of one partition keep their order, and those acknowledged are the first of it: after one that fails, none of
// its partition is sent ([ErrPredecessor]). A batch that is too large for its topic is split; a record that is so by
// itself gets a [TooLargeError]. Any other error can still have been written (a response that got lost), so consumers
// deduplicate.
//
// It is safe for concurrent use, but order between two concurrent calls is not defined: who needs order makes one call
// at a time.
func (c *Client) Produce(ctx context.Context, records []Record) []error {
	p := production{client: c, records: records, errs: make([]error, len(records))}
	p.assign(ctx)
	for {
		requests := p.round()
		if len(requests) == 0 {
			return p.errs
		}
		var wg sync.WaitGroup
		for _, batches := range requests {
			wg.Go(func() { p.send(ctx, batches) })
		}
		wg.Wait()
		for _, batches := range requests {
			for _, q := range batches {
				p.settle(ctx, q)
			}
		}
	}
}

// production is one call of Produce. Between rounds it is its goroutine's; in a round each request has its own queues.
type production struct {
	client  *Client
	records []Record
	errs    []error
	queues  []*queue // in order of first mention
}

// queue is what one partition has yet to get. A partition and its leader are chosen once a call, from one view of the
// metadata: a key never moves between the rounds, and a partition that fails has an empty queue from then on.
type queue struct {
	TopicPartition
	leader int
	limit  int   // bytes of a batch
	rest   []int // indexes of the records, in order

	batch int   // the first so many of rest go in this round
	bytes int   // that they have as a batch
	base  int64 // the offset that the first one got
	err   error
}

// assign puts each record into the queue of its partition. It sets the error of those that have nowhere to go.
func (p *production) assign(ctx context.Context) {
	ids := map[string][]int{} // of each topic's partitions
	for i := range p.records {
		ids[p.records[i].Topic] = nil
	}
	topics := slices.Collect(maps.Keys(ids))
	leaders, err := p.client.leadersOf(ctx, topics...)
	if err != nil {
		for i := range p.records {
			p.errs[i] = fmt.Errorf("find leader of %s: %w", p.records[i].Topic, err)
		}
		return
	}
	for _, topic := range topics {
		for id := range leaders[topic] {
			ids[topic] = append(ids[topic], id)
		}
	}
	queues := map[TopicPartition]*queue{}
	for i := range p.records {
		r := &p.records[i]
		if len(ids[r.Topic]) == 0 {
			p.errs[i] = fmt.Errorf("produce to %s: %w", r.Topic, errNoTopic)
			continue
		}
		tp := TopicPartition{r.Topic, murmur2.Balance(kafka.Message{Key: r.Key}, ids[r.Topic]...)}
		q, ok := queues[tp]
		if !ok {
			q = &queue{TopicPartition: tp, leader: leaders[tp.Topic][tp.Partition].id, limit: maxPartitionBytes}
			if limit := p.client.limits.get(tp.Topic); limit > 0 {
				q.limit = min(q.limit, limit)
			}
			queues[tp] = q
			p.queues = append(p.queues, q)
		}
		q.rest = append(q.rest, i)
	}
	for _, q := range p.queues {
		if q.leader < 0 {
			p.fail(q, kafka.LeaderNotAvailable)
		}
	}
}

// round takes a batch from each queue, and gathers those that one broker leads into a request. A queue for which a
// request has no room waits for the next round.
func (p *production) round() [][]*queue {
	requests := map[int][]*queue{}
	bytes := map[int]int{}
	for _, q := range p.queues {
		q.batch, q.bytes = 0, batchRecordsAt
		for _, i := range q.rest {
			size := recordBytes(&p.records[i], q.batch)
			if q.batch > 0 && q.bytes+size > q.limit {
				break
			}
			q.batch++
			q.bytes += size
		}
		switch {
		case q.batch == 0:
			continue
		case q.bytes > maxSingleBytes:
			p.fail(q, &TooLargeError{Topic: q.Topic, Size: q.bytes, Limit: p.client.limits.get(q.Topic)})
			continue
		case bytes[q.leader] > 0 && bytes[q.leader]+q.bytes > maxRequestBytes:
			continue
		}
		bytes[q.leader] += q.bytes
		requests[q.leader] = append(requests[q.leader], q)
	}
	return slices.Collect(maps.Values(requests))
}

// send sends one request and notes the answer in its queues.
func (p *production) send(ctx context.Context, batches []*queue) {
	msg := &produce.Request{Acks: int16(kafka.RequireAll), Timeout: int32(requestTimeout.Milliseconds())}
	parts := map[string][]produce.RequestPartition{}
	waiting := map[TopicPartition]*queue{}
	for _, q := range batches {
		recs := make([]protocol.Record, q.batch)
		for n, i := range q.rest[:q.batch] {
			recs[n] = wireRecord(&p.records[i])
		}
		set := protocol.RecordSet{Records: protocol.NewRecordReader(recs...)}
		if q.bytes > MaxRecordBytes { // it came compressed when it came first: an operator puts it back
			set.Attributes = protocol.Gzip
		}
		parts[q.Topic] = append(parts[q.Topic], produce.RequestPartition{Partition: int32(q.Partition), RecordSet: set})
		waiting[q.TopicPartition] = q
	}
	for topic, partitions := range parts {
		msg.Topics = append(msg.Topics, produce.RequestTopic{Topic: topic, Partitions: partitions})
	}
	m, err := p.client.roundTrip(ctx, 2*requestTimeout, msg)
	if err != nil {
		for _, q := range batches {
			q.err = err
		}
		return
	}
	for _, t := range m.(*produce.Response).Topics {
		for _, part := range t.Partitions {
			tp := TopicPartition{t.Topic, int(part.Partition)}
			q, ok := waiting[tp]
			if !ok {
				continue
			}
			delete(waiting, tp)
			q.base, q.err = part.BaseOffset, codeErr(part.ErrorCode)
			if q.err != nil && part.ErrorMessage != "" {
				q.err = fmt.Errorf("%w: %s", q.err, part.ErrorMessage)
			}
		}
	}
	for _, q := range waiting {
		q.err = errors.New("the broker's response does not mention the partition")
	}
}

// settle takes a batch that was acknowledged off its queue, splits one that was too large, and empties the queue of one
// that failed.
func (p *production) settle(ctx context.Context, q *queue) {
	tooLarge := errors.Is(q.err, kafka.MessageSizeTooLarge) || errors.Is(q.err, kafka.RecordListTooLarge)
	switch {
	case q.err == nil:
		for n, i := range q.rest[:q.batch] {
			p.records[i].Partition, p.records[i].Offset = q.Partition, q.base+int64(n)
		}
		q.rest = q.rest[q.batch:]
	case tooLarge && q.batch > 1:
		q.limit = q.bytes / 2
		if limit := p.client.limits.ask(ctx, p.client, q.Topic); limit > 0 && limit < q.bytes {
			q.limit = max(q.limit, limit) // fewer and larger batches than halves
		}
	case tooLarge:
		p.fail(q, &TooLargeError{Topic: q.Topic, Size: q.bytes, Limit: p.client.limits.ask(ctx, p.client, q.Topic)})
	default:
		p.fail(q, q.err)
	}
	q.err = nil
}

// fail gives the queue's batch the error, and [ErrPredecessor] to all that would have followed. Nothing of the
// partition goes out after that.
func (p *production) fail(q *queue, err error) {
	err = fmt.Errorf("produce to %s/%d: %w", q.Topic, q.Partition, err)
	failed := max(q.batch, 1)
	for _, i := range q.rest[:failed] {
		p.errs[i] = err
	}
	for _, i := range q.rest[failed:] {
		p.errs[i] = fmt.Errorf("%w: %s", ErrPredecessor, err.Error()) // its reason is not theirs to be judged by
	}
	q.rest = nil
	if !errors.Is(err, ErrTooLarge) {
		p.client.forget(q.Topic)
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

// recordBytes is how many bytes the record takes as the nth of a batch, at most: its distance in time from the first is
// not known here, and counts as the longest.
func recordBytes(r *Record, n int) int {
	const attributes, time = 1, 10
	size := attributes + time + varintBytes(n) + partBytes(len(r.Key)) + partBytes(len(r.Value)) + varintBytes(len(r.Headers))
	for _, h := range r.Headers {
		size += partBytes(len(h.Key)) + partBytes(len(h.Value))
	}
	return partBytes(size)
}

// partBytes is n bytes and their length in front.
func partBytes(n int) int { return varintBytes(n) + n }

// varintBytes is how long n is in zigzag encoding, seven bits a byte.
func varintBytes(n int) int {
	size := 1
	for v := uint64(n) << 1; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}
