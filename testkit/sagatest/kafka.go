package sagatest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// partitions is how many each topic has.
const partitions = 3

// kafka is the topics of one history, in memory. It never loses a record, and keeps the order of each partition.
type kafka struct {
	logs     map[broker.TopicPartition][]broker.Record
	produced []broker.Record   // in order
	keys     map[string]int    // in the order in which they were seen first: ids that differ from run to run choose the same partitions
	names    map[string]string // of those keys that are ids, in a report
	dead     []broker.Record
}

func newKafka() *kafka {
	return &kafka{logs: map[broker.TopicPartition][]broker.Record{}, keys: map[string]int{}, names: map[string]string{}}
}

// Produce appends each record to the partition of its key.
func (k *kafka) Produce(_ context.Context, records []broker.Record) []error {
	for i := range records {
		r := &records[i]
		tp := broker.TopicPartition{Topic: r.Topic, Partition: k.number(string(r.Key)) % partitions}
		r.Partition, r.Offset, r.Time = tp.Partition, int64(len(k.logs[tp])), time.Now().Truncate(time.Millisecond)
		k.logs[tp], k.produced = append(k.logs[tp], *r), append(k.produced, *r)
		if _, err := saga.ParseDeadLetter(*r); err == nil {
			k.dead = append(k.dead, *r)
		}
	}
	return make([]error, len(records))
}

// Ends is what the relay asks a broker for.
func (k *kafka) Ends(_ context.Context, epochs map[broker.TopicPartition]int32) (map[broker.TopicPartition]broker.End, error) {
	ends := make(map[broker.TopicPartition]broker.End, len(epochs))
	for tp := range epochs {
		ends[tp] = broker.End{Offset: int64(len(k.logs[tp]))}
	}
	return ends, nil
}

// Partitions is the same for all topics.
func (*kafka) Partitions(context.Context, string) (int, error) { return partitions, nil }

func (k *kafka) number(key string) int {
	n, ok := k.keys[key]
	if !ok {
		n = len(k.keys)
		k.keys[key] = n
	}
	return n
}

// all is a topic's records.
func (k *kafka) all(topic string) []broker.Record {
	return slices.DeleteFunc(slices.Clone(k.produced), func(r broker.Record) bool { return r.Topic != topic })
}

// name is a record in a report. Keys that are UUIDs get numbers: they differ from run to run.
func (k *kafka) name(r broker.Record) string {
	key := string(r.Key)
	if _, err := uuid.Parse(key); err == nil {
		if k.names[key] == "" {
			k.names[key] = fmt.Sprintf("#%d", len(k.names)+1)
		}
		key = k.names[key]
	}
	return r.Topic + " " + key
}

func (k *kafka) list(records []broker.Record) string {
	names := make([]string, len(records))
	for i, r := range records {
		names[i] = k.name(r)
	}
	return strings.Join(names, ", ")
}

// deadLetter is the first one, as an error.
func (k *kafka) deadLetter() error {
	if len(k.dead) == 0 {
		return nil
	}
	d, err := saga.ParseDeadLetter(k.dead[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s gives up on %s, which becomes a dead letter: %s", d.Group, k.name(broker.Record{Topic: d.Topic, Key: k.dead[0].Key}), d.Reason)
}

// group is a consumer group, its member, and how far it is.
type group struct {
	service   int
	place     int // among the service's groups
	member    *saga.Member
	assigned  bool                            // the member knows its partitions
	next      map[broker.TopicPartition]int64 // what the member reads next
	committed map[broker.TopicPartition]int64 // what Kafka was told
	zombies   []zombie
}

// zombie is a member that was replaced, with the batch that it had read.
type zombie struct {
	member *saga.Member
	batch  []broker.Record
}

// partitions are all of the group's, in order.
func (g *group) partitions() []broker.TopicPartition {
	var tps []broker.TopicPartition
	for _, topic := range g.member.Topics() {
		for p := range partitions {
			tps = append(tps, broker.TopicPartition{Topic: topic, Partition: p})
		}
	}
	return tps
}

// waiting are those that have records for the group.
func (g *group) waiting(k *kafka) []broker.TopicPartition {
	return slices.DeleteFunc(g.partitions(), func(tp broker.TopicPartition) bool { return g.next[tp] >= int64(len(k.logs[tp])) })
}

// poll reads up to n records, mixed: 0 means one partition after the other, anything else a choice of partitions and
// any order among them. alone has it read one partition. It leaves out the partitions of some records.
func (g *group) poll(k *kafka, n int, mix uint64, alone bool, without []broker.Record) []broker.Record {
	tps := slices.DeleteFunc(g.waiting(k), func(tp broker.TopicPartition) bool {
		return slices.ContainsFunc(without, func(r broker.Record) bool { return r.Topic == tp.Topic && r.Partition == tp.Partition })
	})
	r := newRand(mix)
	if mix != 0 && len(tps) > 1 {
		r.Shuffle(len(tps), func(i, j int) { tps[i], tps[j] = tps[j], tps[i] })
		tps = tps[:1+r.IntN(len(tps))]
	}
	if alone {
		tps = tps[:min(1, len(tps))]
	}
	var batch []broker.Record
	for len(batch) < n && len(tps) > 0 {
		i := 0
		if mix != 0 {
			i = r.IntN(len(tps))
		}
		tp := tps[i]
		batch = append(batch, k.logs[tp][g.next[tp]])
		if g.next[tp]++; g.next[tp] == int64(len(k.logs[tp])) {
			tps = slices.Delete(tps, i, i+1)
		}
	}
	return batch
}

// commit tells Kafka how far the member is.
func (g *group) commit() { g.committed = maps.Clone(g.next) }

// rewind is what a new member begins with.
func (g *group) rewind() { g.next = maps.Clone(g.committed) }
