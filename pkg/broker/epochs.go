package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// Each leader of a partition has an epoch of its own, which it writes into every batch. A log that was cut has other
// records at offsets that it had before, and these have a newer epoch. Whoever remembers the epoch of the last record
// it has read can ask where that epoch ends in the log of now: if that is below its position, the log was cut there
// (KIP-320).
const (
	noEpoch   int32 = -1
	unchecked int32 = -2 // no leader has this epoch
)

// epochOffset is an offset and a leader epoch: of a fetch, that of the leader; of a position, that of the record before
// it.
type epochOffset struct {
	offset int64
	epoch  int32
}

// unmarked is offsets without an epoch.
func unmarked(offsets map[TopicPartition]int64) map[TopicPartition]epochOffset {
	out := make(map[TopicPartition]epochOffset, len(offsets))
	for tp, o := range offsets {
		out[tp] = epochOffset{o, noEpoch}
	}
	return out
}

// epochs is where each leader epoch begins in what was read of a partition, in order. A first offset of -1 is not
// known.
type epochs []epochOffset

func (e *epochs) add(more ...epochOffset) {
	for _, p := range more {
		if n := len(*e); n == 0 || (*e)[n-1].epoch != p.epoch {
			*e = append(*e, p)
		}
	}
}

// before is the epoch of the last record below an offset.
func (e epochs) before(offset int64) int32 {
	for _, p := range slices.Backward(e) {
		if p.offset < offset {
			return p.epoch
		}
	}
	return noEpoch
}

// common is how far a log has what was read, of which it ends an epoch at some offset, and has no later one that was
// read.
func (e epochs) common(end epochOffset) int64 {
	for _, p := range e {
		if p.epoch > end.epoch && p.offset >= 0 {
			return min(end.offset, p.offset)
		}
	}
	return end.offset
}

// forget drops what lies before a committed offset, but for the epoch of the record before it.
func (e *epochs) forget(committed int64) {
	i := 0
	for i+1 < len(*e) && (*e)[i+1].offset < committed {
		i++
	}
	*e = (*e)[i:]
}

// kafka-go has no OffsetForLeaderEpoch.
func init() { protocol.Register(&epochRequest{}, &epochResponse{}) }

type epochRequest struct {
	toBroker  `kafka:"-"`
	ReplicaID int32               `kafka:"min=v3,max=v3"`
	Topics    []epochRequestTopic `kafka:"min=v3,max=v3"`
}

type epochRequestTopic struct {
	Topic      string                  `kafka:"min=v3,max=v3"`
	Partitions []epochRequestPartition `kafka:"min=v3,max=v3"`
}

type epochRequestPartition struct {
	Partition          int32 `kafka:"min=v3,max=v3"`
	CurrentLeaderEpoch int32 `kafka:"min=v3,max=v3"`
	LeaderEpoch        int32 `kafka:"min=v3,max=v3"`
}

func (*epochRequest) ApiKey() protocol.ApiKey { return protocol.OffsetForLeaderEpoch }

type epochResponse struct {
	ThrottleTimeMS int32                `kafka:"min=v3,max=v3"`
	Topics         []epochResponseTopic `kafka:"min=v3,max=v3"`
}

type epochResponseTopic struct {
	Topic      string                   `kafka:"min=v3,max=v3"`
	Partitions []epochResponsePartition `kafka:"min=v3,max=v3"`
}

type epochResponsePartition struct {
	ErrorCode   int16 `kafka:"min=v3,max=v3"`
	Partition   int32 `kafka:"min=v3,max=v3"`
	LeaderEpoch int32 `kafka:"min=v3,max=v3"`
	EndOffset   int64 `kafka:"min=v3,max=v3"`
}

func (*epochResponse) ApiKey() protocol.ApiKey { return protocol.OffsetForLeaderEpoch }

// freshRequest is a metadata request that a broker answers: kafka-go looks into its memory only where it sees the plain
// one.
type freshRequest struct{ metadata.Request }

// Split implements protocol.Splitter.
func (r *freshRequest) Split(protocol.Cluster) ([]protocol.Message, protocol.Merger, error) {
	return []protocol.Message{&r.Request}, r, nil
}

// Merge implements protocol.Merger.
func (*freshRequest) Merge(_ []protocol.Message, results []any) (protocol.Message, error) {
	if err, ok := results[0].(error); ok {
		return nil, err
	}
	return &freshResponse{results[0].(*metadata.Response)}, nil
}

type freshResponse struct{ *metadata.Response }

// freshLeaders is leadersOf from no memory.
func (c *Client) freshLeaders(ctx context.Context, topics ...string) (map[string][]leader, error) {
	m, err := c.ask(ctx, requestTimeout, &freshRequest{metadata.Request{TopicNames: topics}})
	if err != nil {
		return nil, err
	}
	return leadersIn(m.(*freshResponse).Topics), nil
}

// epochEnds asks a broker up to where partitions that it leads have records of the leader epochs of some places, or of
// older ones: the answer is the end of the latest of these, and its epoch. Both are -1 where the broker knows no such
// epoch. The places' offsets do not matter.
func (c *Client) epochEnds(ctx context.Context, broker int, current map[TopicPartition]int32, last map[TopicPartition]epochOffset) (
	map[TopicPartition]epochOffset, map[TopicPartition]error) {
	req := &epochRequest{ReplicaID: -1}
	req.send(int32(broker))
	for t, parts := range perTopic(maps.Keys(last), func(tp TopicPartition) epochRequestPartition {
		return epochRequestPartition{int32(tp.Partition), current[tp], last[tp].epoch}
	}) {
		req.Topics = append(req.Topics, epochRequestTopic{t, parts})
	}
	ends, errs := map[TopicPartition]epochOffset{}, map[TopicPartition]error{}
	m, err := c.ask(ctx, requestTimeout, req)
	if err != nil {
		for tp := range last {
			errs[tp] = err
		}
		return nil, errs
	}
	for _, t := range m.(*epochResponse).Topics {
		for _, p := range t.Partitions {
			tp := TopicPartition{t.Topic, int(p.Partition)}
			if err := codeErr(p.ErrorCode); err != nil {
				errs[tp] = err
			} else {
				ends[tp] = epochOffset{p.EndOffset, p.LeaderEpoch}
			}
		}
	}
	return ends, errs
}

// epochQuestion is what one broker is asked, by partition: the epoch that its leader is thought to have, and the places
// whose epochs' ends are wanted.
type epochQuestion struct {
	current map[TopicPartition]int32
	last    map[TopicPartition]epochOffset
}

func newEpochQuestion() epochQuestion {
	return epochQuestion{map[TopicPartition]int32{}, map[TopicPartition]epochOffset{}}
}

// allEpochEnds is epochEnds of several brokers, by their ids, all at once.
func (c *Client) allEpochEnds(ctx context.Context, ask map[int]epochQuestion) (map[TopicPartition]epochOffset, map[TopicPartition]error) {
	var asking sync.WaitGroup
	var mu sync.Mutex
	ends, errs := map[TopicPartition]epochOffset{}, map[TopicPartition]error{}
	for broker, q := range ask {
		asking.Go(func() {
			got, failed := c.epochEnds(ctx, broker, q.current, q.last)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(ends, got)
			maps.Copy(errs, failed)
		})
	}
	asking.Wait()
	return ends, errs
}

// fenced tells whether a broker and the metadata do not agree on the leader epoch.
func fenced(err error) bool {
	return errors.Is(err, kafka.FencedLeaderEpoch) || errors.Is(err, kafka.UnknownLeaderEpoch)
}
