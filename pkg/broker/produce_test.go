package broker_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// What a broker may answer to one partition's batch.
var produceFaults = []*kerr.Error{
	kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.MessageTooLarge,
	kerr.RecordListTooLarge, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut,
}

// Whatever brokers answer, the acknowledged records of each partition are the first ones that were given, and lie there
// in order, at the offsets that the records were told.
func TestAcknowledgedRecordsAreAPrefix(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	client, err := broker.Open(broker.Config{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var topics []string
	for n := range 2 {
		topics = append(topics, fmt.Sprintf("%s-%d", brokertest.Name(t), n))
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: topics[n], Partitions: 3}}); err != nil {
			t.Fatal(err)
		}
	}
	filler := make([]byte, 400<<10)

	rapid.Check(t, func(rt *rapid.T) {
		var faults []kfake.Fault
		for range rapid.IntRange(0, 4).Draw(rt, "faults") {
			faults = append(faults, kfake.Fault{
				Keys:       []kmsg.Key{kmsg.Produce},
				Topic:      rapid.SampledFrom(topics).Draw(rt, "topic"),
				Partitions: []int32{rapid.Int32Range(0, 2).Draw(rt, "partition")},
				Err:        rapid.SampledFrom(produceFaults).Draw(rt, "error"),
				Count:      rapid.IntRange(1, 3).Draw(rt, "count"),
			})
		}
		handle := cluster.Fault(faults...)
		defer handle.Remove()
		for _, topic := range topics { // as the client saw them a moment ago
			broker.SetLeaders(rt, client, topic, func(p, leader int) int {
				return rapid.SampledFrom([]int{leader, leader, leader, -1}).Draw(rt, fmt.Sprintf("leader of %d", p))
			})
		}
		recs := make([]broker.Record, rapid.IntRange(1, 30).Draw(rt, "records"))
		for i := range recs {
			size := rapid.SampledFrom([]int{1, 10, 100 << 10, 300 << 10, 400 << 10}).Draw(rt, "size")
			recs[i] = broker.Record{
				Topic: rapid.SampledFrom(append(topics, "no.such")).Draw(rt, "to"),
				Key:   fmt.Appendf(nil, "key-%d", rapid.IntRange(0, 8).Draw(rt, "key")), Value: filler[:size],
			}
		}

		failed := map[broker.TopicPartition]int{}
		last := map[broker.TopicPartition]int64{}
		for i, err := range client.Produce(t.Context(), recs) {
			r := &recs[i]
			tp := broker.TopicPartition{Topic: r.Topic, Partition: broker.PartitionOf(r.Key, 3)}
			if err != nil {
				failed[tp] = i
				continue
			}
			if first, ok := failed[tp]; ok {
				rt.Fatalf("record %d of %v was acknowledged, and %d before it was not", i, tp, first)
			}
			if r.Partition != tp.Partition {
				rt.Fatalf("record %d lies in partition %d, its key belongs into %d", i, r.Partition, tp.Partition)
			}
			if before, ok := last[tp]; ok && r.Offset <= before {
				rt.Fatalf("record %d has offset %d of %v, after one with %d", i, r.Offset, tp, before)
			}
			last[tp] = r.Offset
		}
	})
}

// A partition that has got its leader back between two rounds does not take what follows a record that it could not
// take.
func TestLeaderComesBackBetweenRounds(t *testing.T) {
	c := brokertest.Fake(t)
	client, topic := open(t, c), c.Topic(t, 1)
	broker.SetLeaders(t, client, topic, func(int, int) int { return -1 })
	big := make([]byte, 400<<10)
	errs := client.Produce(t.Context(), []broker.Record{{Topic: topic, Key: []byte("k"), Value: big}, {Topic: topic, Key: []byte("k"), Value: big}})
	if errs[0] == nil || !errors.Is(errs[1], broker.ErrPredecessor) {
		t.Fatalf("errors %v; want both refused, the second for the first", errs)
	}
	if errs := client.Produce(t.Context(), []broker.Record{{Topic: topic, Value: big}}); errs[0] != nil {
		t.Fatalf("the leader is back: %v", errs[0])
	}
}

// Each acknowledged record knows where it lies.
func TestProduceTellsOffsets(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 3)
		recs := records(topic, 5, 4)
		recs = append(recs, broker.Record{Topic: topic, Key: []byte("big"), Value: make([]byte, 500<<10)}, broker.Record{Topic: topic, Key: []byte("big"), Value: make([]byte, 500<<10)})
		for _, err := range client.Produce(t.Context(), recs) {
			if err != nil {
				t.Fatal(err)
			}
		}
		read := 0
		if err := client.Scan(t.Context(), topic, func(r broker.Record) error {
			read++
			for i := range recs {
				if recs[i].Partition == r.Partition && recs[i].Offset == r.Offset {
					if string(recs[i].Key) != string(r.Key) || string(recs[i].Value) != string(r.Value) {
						t.Errorf("%s lies at %d/%d, where %s was acknowledged", r.Key, r.Partition, r.Offset, recs[i].Key)
					}
					return nil
				}
			}
			t.Errorf("nobody was told of %d/%d", r.Partition, r.Offset)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if read != len(recs) {
			t.Errorf("%d records read, %d written", read, len(recs))
		}
	})
}

// A batch over the topic's limit is split, in order. A record over it is named with its size and the limit; what
// follows it in its partition waits, and other partitions do not notice.
func TestTooLarge(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, other := open(t, c), brokertest.Name(t), brokertest.Name(t)
		const limit = 20_000
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{
			{Name: topic, Partitions: 1, Config: map[string]string{"max.message.bytes": fmt.Sprint(limit)}}, {Name: other, Partitions: 1},
		}); err != nil {
			t.Fatal(err)
		}
		c.CreateTopic(t, topic, 1) // waits for its leader
		c.CreateTopic(t, other, 1)
		var recs []broker.Record
		for i := range 60 { // some 90 KB
			value := make([]byte, 1000+i%7*200)
			_, _ = rand.Read(value)
			recs = append(recs, broker.Record{Topic: topic, Key: []byte("k"), Value: value})
		}
		produce(t, client, recs)
		for i := range recs {
			if recs[i].Offset != int64(i) {
				t.Fatalf("record %d has offset %d", i, recs[i].Offset)
			}
		}

		recs = []broker.Record{
			{Topic: topic, Key: []byte("before"), Value: []byte("x")},
			{Topic: topic, Key: []byte("big"), Value: make([]byte, limit)},
			{Topic: topic, Key: []byte("after"), Value: []byte("x")},
			{Topic: other, Value: []byte("x")},
		}
		errs := client.Produce(t.Context(), recs)
		large, ok := errors.AsType[*broker.TooLargeError](errs[1])
		switch {
		case errs[0] != nil || errs[3] != nil:
			t.Errorf("errors %v; want none before the large one and in other partitions", errs)
		case !ok || !errors.Is(errs[1], broker.ErrTooLarge) || large.Limit != limit || large.Size < limit || large.Topic != topic:
			t.Errorf("error %v; want a TooLargeError with the limit %d", errs[1], limit)
		case !errors.Is(errs[2], broker.ErrPredecessor) || errors.Is(errs[2], broker.ErrTooLarge):
			t.Errorf("error %v of what follows; want ErrPredecessor alone", errs[2])
		}
	})
}

// A record of MaxRecordBytes goes into any topic with default settings, however it is made up.
func TestMaxRecordBytesFits(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		var headers []broker.Header
		sum := 0
		for i := range 40 {
			headers = append(headers, broker.Header{Key: strings.Repeat("h", i+1), Value: []byte("v")})
			sum += i + 2
		}
		for i, err := range client.Produce(t.Context(), []broker.Record{
			{Topic: topic, Value: make([]byte, broker.MaxRecordBytes)},
			{Topic: topic, Key: make([]byte, 1000), Value: make([]byte, broker.MaxRecordBytes-1000-sum), Headers: headers},
		}) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		}
	})
}

// A call with more than a request may have goes in several.
func TestRequestsAreBounded(t *testing.T) {
	c := brokertest.Fake(t)
	client, topic := open(t, c), c.Topic(t, 100)
	value := make([]byte, 500<<10)
	var recs []broker.Record
	for i := range 200 {
		recs = append(recs, broker.Record{Topic: topic, Key: fmt.Append(nil, i), Value: value})
	}
	if largest := broker.LargestRequest(t, client, recs); largest > 32<<20 {
		t.Errorf("a request has %d bytes", largest)
	}
	for i, err := range client.Produce(t.Context(), recs) {
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}
