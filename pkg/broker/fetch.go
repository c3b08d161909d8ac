package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/fetch"
)

const (
	fetchMaxBytes     = 2 << 20   // one response, which a consumer holds a few of, decoded
	fetchPartitionMax = 256 << 10 // one partition's part of it; a larger record still comes, alone
)

// fetched is one response: the records in order per partition, where each partition goes on, and its end.
type fetched struct {
	records []Record
	next    map[TopicPartition]int64 // offset to fetch next
	epochs  map[TopicPartition]epochs
	end     map[TopicPartition]int64 // last stable offset: what open transactions have written is not to be had yet
	errs    map[TopicPartition]error
}

// fetchSession lets requests and responses name only the partitions in which something has changed; the broker
// remembers the rest (KIP-227). It is one fetch loop's with one broker. The zero value begins a session, nil is none.
type fetchSession struct {
	id, epoch int32
	sent      map[TopicPartition]epochOffset // what the broker knows
}

// partitions returns what to tell the broker of the offsets to fetch from: at least one, by which the request finds
// the broker.
func (f *fetchSession) partitions(from map[TopicPartition]epochOffset) map[TopicPartition]epochOffset {
	if f == nil || f.epoch == 0 {
		return from
	}
	changed := map[TopicPartition]epochOffset{}
	for tp, at := range from {
		if f.sent[tp] != at {
			changed[tp] = at
		}
	}
	for tp, at := range from {
		if len(changed) == 0 {
			changed[tp] = at
		}
	}
	return changed
}

// failed says that nobody knows what the broker knows. The next request begins a new session.
func (f *fetchSession) failed() {
	if f != nil {
		f.epoch = 0
	}
}

// answered notes what the broker knows from now on. A broker that has no room for a session gives it the id 0.
func (f *fetchSession) answered(id int32, told map[TopicPartition]epochOffset) {
	if f == nil {
		return
	}
	if f.epoch == 0 {
		f.sent = map[TopicPartition]epochOffset{}
	}
	f.id = id
	maps.Copy(f.sent, told)
	switch {
	case id == 0:
		f.epoch = 0
	case f.epoch == math.MaxInt32:
		f.epoch = 1
	default:
		f.epoch++
	}
}

// fetch asks one broker for all the given partitions at once and waits up to maxWait for the first record. A broker
// that leads a partition in another epoch than the given one refuses it; without an epoch it does not look.
func (c *Client) fetch(ctx context.Context, from map[TopicPartition]epochOffset, maxWait time.Duration, session *fetchSession) (fetched, error) {
	told := session.partitions(from)
	req := &fetch.Request{ReplicaID: -1, MaxWaitTime: int32(maxWait.Milliseconds()), MinBytes: 1, MaxBytes: fetchMaxBytes, IsolationLevel: readCommitted, SessionEpoch: -1}
	if session != nil {
		req.SessionID, req.SessionEpoch = session.id, session.epoch
	}
	for t, parts := range perTopic(maps.Keys(told), func(tp TopicPartition) fetch.RequestPartition {
		return fetch.RequestPartition{
			Partition: int32(tp.Partition), CurrentLeaderEpoch: told[tp].epoch, FetchOffset: told[tp].offset, LogStartOffset: -1, PartitionMaxBytes: fetchPartitionMax,
		}
	}) {
		req.Topics = append(req.Topics, fetch.RequestTopic{Topic: t, Partitions: parts})
	}
	m, err := c.ask(ctx, maxWait+requestTimeout, req)
	if err != nil {
		session.failed()
		return fetched{}, fmt.Errorf("fetch: %w", err)
	}
	res := m.(*fetchResponse)
	if err := codeErr(res.ErrorCode); err != nil {
		session.failed()
		if errors.Is(err, kafka.FetchSessionIDNotFound) || errors.Is(err, kafka.InvalidFetchSessionEpoch) {
			return fetched{}, nil // evicted by others, or the broker restarted: begin anew
		}
		return fetched{}, fmt.Errorf("fetch: %w", err)
	}
	session.answered(res.SessionID, told)
	out := fetched{
		next: map[TopicPartition]int64{}, epochs: map[TopicPartition]epochs{}, end: map[TopicPartition]int64{}, errs: map[TopicPartition]error{},
	}
	for _, t := range res.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			tp := TopicPartition{t.Topic, int(p.Partition)}
			if err := codeErr(p.ErrorCode); err != nil {
				out.errs[tp] = err
				continue
			}
			out.end[tp] = p.HighWatermark
			if p.LastStableOffset >= 0 {
				out.end[tp] = p.LastStableOffset
			}
			recs, next, led, err := readRecords(tp, p.RecordSet.batches, p.AbortedTransactions, from[tp].offset)
			if err != nil {
				out.errs[tp] = err
				continue
			}
			out.records = append(out.records, recs...)
			out.next[tp], out.epochs[tp] = next, led
		}
	}
	return out, nil
}

// Scan reads a topic from its beginning to where it ended when Scan began, one partition after the other, and hands fn
// each record. It is for tools: no group, nothing committed. An unknown topic has no records.
func (c *Client) Scan(ctx context.Context, topic string, fn func(Record) error) error {
	c.forget(topic) // it may have grown
	leaders, err := c.leadersOf(ctx, topic)
	if err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	for p := range leaders[topic] {
		tp := TopicPartition{topic, p}
		first, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.offsets(ctx, earliest, []TopicPartition{tp}) })
		if err == nil {
			err = c.scanPartition(ctx, tp, first[tp], fn)
		}
		if err != nil {
			return fmt.Errorf("scan %s/%d: %w", topic, p, err)
		}
	}
	return nil
}

func (c *Client) scanPartition(ctx context.Context, tp TopicPartition, from int64, fn func(Record) error) error {
	end, err := patiently(ctx, func() (map[TopicPartition]int64, error) { return c.offsets(ctx, latest, []TopicPartition{tp}) })
	if err != nil {
		return err
	}
	for at := from; at < end[tp]; {
		f, err := patiently(ctx, func() (fetched, error) {
			f, err := c.fetch(ctx, unmarked(map[TopicPartition]int64{tp: at}), 500*time.Millisecond, nil)
			return f, cmp.Or(err, f.errs[tp])
		})
		if err != nil {
			return err
		}
		for _, r := range f.records {
			if r.Offset >= end[tp] {
				return nil
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		at = f.next[tp]
	}
	return nil
}

// patiently asks again while the cluster's answer is that it will know soon: a topic that was just created has no
// leader yet, a broker that just came back has not caught up.
func patiently[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		out, err := ask()
		var kafkaErr kafka.Error
		if err != nil && !(errors.As(err, &kafkaErr) && kafkaErr.Temporary()) {
			err = backoff.Permanent(err)
		}
		return out, err
	}, backoff.WithMaxElapsedTime(requestTimeout))
}
