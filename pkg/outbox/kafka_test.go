package outbox_test

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/converge-dev/converge/pkg/broker"
)

// memory is a Kafka that keeps its topics in memory, refuses partitions when told to, and forgets the ends of logs.
type memory struct {
	partitions int // of each topic

	mu      sync.Mutex
	logs    map[broker.TopicPartition][]broker.Record
	begins  map[broker.TopicPartition][]int64 // where each leader after the first one began
	epochs  map[broker.TopicPartition]int32   // that ends were last asked for with
	refused map[int]bool                      // partitions, of any topic
	hanging map[int]chan struct{}
	calls   int
}

func newMemory(partitions int) *memory {
	return &memory{partitions: partitions, logs: map[broker.TopicPartition][]broker.Record{}, begins: map[broker.TopicPartition][]int64{}, epochs: map[broker.TopicPartition]int32{}, refused: map[int]bool{}, hanging: map[int]chan struct{}{}}
}

var errNoLeader = errors.New("no leader")

func (m *memory) Produce(ctx context.Context, records []broker.Record) []error {
	errs := make([]error, len(records))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	var hang chan struct{}
	for i := range records {
		r := &records[i]
		r.Partition = broker.PartitionOf(r.Key, m.partitions)
		tp := broker.TopicPartition{Topic: r.Topic, Partition: r.Partition}
		if m.refused[r.Partition] {
			errs[i] = errNoLeader
			hang = m.hanging[r.Partition]
			continue
		}
		r.Offset = int64(len(m.logs[tp]))
		m.logs[tp] = append(m.logs[tp], *r)
	}
	if hang != nil { // its broker does not answer
		m.mu.Unlock()
		select {
		case <-hang:
		case <-ctx.Done():
		}
		m.mu.Lock()
	}
	return errs
}

func (m *memory) Ends(_ context.Context, epochs map[broker.TopicPartition]int32) (map[broker.TopicPartition]broker.End, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ends := map[broker.TopicPartition]broker.End{}
	for tp, before := range epochs {
		m.epochs[tp] = before
		if m.refused[tp.Partition] { // its broker does not answer
			continue
		}
		begins := m.begins[tp]
		end := broker.End{Offset: int64(len(m.logs[tp])), Epoch: int32(len(begins))}
		if before != broker.NoEpoch && before < end.Epoch {
			end.Offset = slices.Min(begins[before:])
		}
		ends[tp] = end
	}
	return ends, nil
}

func (m *memory) Partitions(context.Context, string) (int, error) { return m.partitions, nil }

// cut forgets what a partition has from an offset on.
func (m *memory) cut(topic string, partition, at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tp := broker.TopicPartition{Topic: topic, Partition: partition}
	m.logs[tp] = m.logs[tp][:at:at]
	m.begins[tp] = append(m.begins[tp], int64(at))
}

// asked is the epoch that the partition's end was last asked for with.
func (m *memory) asked(topic string, partition int) int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch, ok := m.epochs[broker.TopicPartition{Topic: topic, Partition: partition}]; ok {
		return epoch
	}
	return broker.NoEpoch
}

// others has another producer append n records.
func (m *memory) others(topic string, partition, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tp := broker.TopicPartition{Topic: topic, Partition: partition}
	for range n {
		m.logs[tp] = append(m.logs[tp], broker.Record{Topic: topic, Partition: partition, Key: []byte("another's"), Offset: int64(len(m.logs[tp]))})
	}
}

func (m *memory) refuse(partition int, refused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[partition] = refused
}

// values returns the topic's values by key, in the order of the logs.
func (m *memory) values(topic string) map[string][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]string{}
	for p := range m.partitions {
		for _, r := range m.logs[broker.TopicPartition{Topic: topic, Partition: p}] {
			out[string(r.Key)] = append(out[string(r.Key)], string(r.Value))
		}
	}
	return out
}

func (m *memory) has(topic, key, value string) func() bool {
	return func() bool { return slices.Contains(m.values(topic)[key], value) }
}

func (m *memory) length(topic string) func() int {
	return func() (n int) {
		m.mu.Lock()
		defer m.mu.Unlock()
		for p := range m.partitions {
			n += len(m.logs[broker.TopicPartition{Topic: topic, Partition: p}])
		}
		return n
	}
}
