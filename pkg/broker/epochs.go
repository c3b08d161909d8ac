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
	"github.com/segmentio/kafka-go/protocol/metadata"
)

// Each leader of a partition has an epoch of its own, which it writes into every batch. A log that was cut has other records at offsets
// that it had before, and these have a newer epoch. Whoever remembers the epoch of the last record it has read can ask where that epoch
// ends in the log of now: if that is below its position, the log was cut there (KIP-320).
const (
	noEpoch   int32 = -1
	unchecked int32 = -2 // no leader has this epoch
)

// place is an offset and a leader epoch: of a fetch, that of the leader; of a position, that of the record before it.
type place struct {
	offset int64
	epoch  int32
}

// unmarked is offsets without an epoch.
func unmarked(offsets map[TopicPartition]int64) map[TopicPartition]place {
	out := make(map[TopicPartition]place, len(offsets))
	for tp, o := range offsets {
		out[tp] = place{o, noEpoch}
	}
	return out
}

// epochs is where each leader epoch begins in what was read of a partition, in order. A first offset of -1 is not known.
type epochs []place

func (e *epochs) add(more ...place) {
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

// common is how far a log has what was read, of which it ends an epoch at some offset, and has no later one that was read.
func (e epochs) common(end place) int64 {
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

// freshRequest is a metadata request that a broker answers: kafka-go looks into its memory only where it sees the plain one.
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

// epochEnds asks a broker up to where partitions that it leads have records of the leader epochs of some places, or of older ones: the
// answer is the end of the latest of these, and its epoch. Both are -1 where the broker knows no such epoch. The places' offsets do not matter.
func (c *Client) epochEnds(ctx context.Context, broker int, current map[TopicPartition]int32, last map[TopicPartition]place) (
	map[TopicPartition]place, map[TopicPartition]error) {
	req := &epochRequest{ReplicaID: -1}
	req.send(int32(broker))
	topics := map[string][]epochRequestPartition{}
	for tp, p := range last {
		topics[tp.Topic] = append(topics[tp.Topic], epochRequestPartition{int32(tp.Partition), current[tp], p.epoch})
	}
	for t, parts := range topics {
		req.Topics = append(req.Topics, epochRequestTopic{t, parts})
	}
	ends, errs := map[TopicPartition]place{}, map[TopicPartition]error{}
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
				ends[tp] = place{p.EndOffset, p.LeaderEpoch}
			}
		}
	}
	return ends, errs
}

// fenced tells whether a broker and the metadata do not agree on the leader epoch.
func fenced(err error) bool {
	return errors.Is(err, kafka.FencedLeaderEpoch) || errors.Is(err, kafka.UnknownLeaderEpoch)
}

// last is the position, and the latest epoch that is known to have reached it. The caller holds mu.
func (h *share) last() place {
	if e := h.epochs.before(h.next); e >= 0 {
		return place{h.next, e}
	}
	return place{h.next, h.reached}
}

// validate asks where the leaders' logs are still those that the positions are of, where that is not known. It tells, as resolve does, whether
// any partition can be fetched by now that could not, and whether any could not be validated.
func (s *Session) validate(ctx context.Context) (resolved, failed bool) {
	type question struct {
		shares  map[TopicPartition]*share
		current map[TopicPartition]int32
		last    map[TopicPartition]place
	}
	ask := map[int]question{}
	s.mu.Lock()
	now := time.Now()
	for tp, h := range s.held {
		if h.leader < 0 || h.next < 0 || h.outside || h.checked == h.epoch || s.going[tp] != nil || h.retry.After(now) {
			continue
		}
		last := h.last()
		if last.epoch < 0 || h.epoch < 0 {
			h.checked, resolved = h.epoch, true
			continue
		}
		q, ok := ask[h.leader]
		if !ok {
			q = question{map[TopicPartition]*share{}, map[TopicPartition]int32{}, map[TopicPartition]place{}}
			ask[h.leader] = q
		}
		q.shares[tp], q.current[tp], q.last[tp] = h, h.epoch, last
	}
	s.mu.Unlock()
	var asking sync.WaitGroup
	var mu sync.Mutex
	ends, errs := map[TopicPartition]place{}, map[TopicPartition]error{}
	for broker, q := range ask {
		asking.Go(func() {
			got, failed := s.client.epochEnds(ctx, broker, q.current, q.last)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(ends, got)
			maps.Copy(errs, failed)
		})
	}
	asking.Wait()
	for _, q := range ask {
		for tp, h := range q.shares {
			err := errs[tp]
			end, ok := ends[tp]
			if err == nil && !ok {
				err = kafka.UnknownTopicOrPartition
			}
			if err == nil {
				err = s.judge(ctx, h, q.current[tp], q.last[tp], end)
			}
			if err == nil {
				resolved = true
				continue
			}
			failed = true
			s.mu.Lock()
			s.doubt = s.doubt || fenced(err)
			s.later(ctx, h, "leader epoch", err)
			s.mu.Unlock()
		}
	}
	return resolved, failed
}

// judge takes the answer to where the epoch of the record before a position ends.
func (s *Session) judge(ctx context.Context, h *share, current int32, last, end place) error {
	undefined := end.offset < 0 || end.epoch < 0
	s.mu.Lock()
	if s.held[h.tp] != h || h.next != last.offset { // gone, or a fetch that was under way has moved on: to be asked anew
		s.mu.Unlock()
		signal(s.kick)
		return nil
	}
	at := h.epochs.common(end)
	// A broker that has that epoch behind it and does not know where it ended keeps no epochs; an offset outside of its log tells then.
	if undefined && last.epoch <= current || !undefined && at >= last.offset {
		h.checked = current
		s.mu.Unlock()
		return nil
	}
	committed := h.committed
	s.mu.Unlock()
	if undefined { // a leader of so late an epoch has never been: it is another topic
		p, err := s.anew(ctx, h)
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rewind(h, p, nil, current)
		return nil
	}
	s.cfg.Log.ErrorContext(ctx, "the group was further than the partition's log is the same: it was cut; going on where it was cut",
		"group", s.cfg.Group, "topic", h.tp.Topic, "partition", h.tp.Partition, "offset", last.offset, "epoch", last.epoch, "cut", at, "leader_epoch", current)
	if err := s.tellCut(ctx, h.tp, last.offset, at); err != nil {
		return err
	}
	if committed > at { // what lies below may not be handled yet
		committed = at
		if err := s.note(ctx, map[TopicPartition]place{h.tp: {at, end.epoch}}); err != nil {
			return fmt.Errorf("commit where the log was cut: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewind(h, position{at, committed, end.epoch}, epochs{{-1, end.epoch}}, current)
	return nil
}

// rewind goes back in a partition. What was fetched of it and not polled is dropped, and so are commits of what was polled before, until
// the caller has polled as far again. The caller holds mu.
func (s *Session) rewind(h *share, p position, e epochs, current int32) {
	if s.held[h.tp] != h {
		return
	}
	n := *h
	n.next, n.outside, n.epochs, n.reached, n.checked, n.polled = p.next, false, e, noEpoch, current, p.next
	n.ages = nil
	n.committedTo(p.committed)
	s.held[h.tp] = &n
	s.cuts[h.tp], s.rewound = p.next, true
}

// uncut drops records of before a cut that wait for Poll. It must run before records of after it join them. The caller holds mu.
func (s *Session) uncut() {
	if len(s.cuts) == 0 {
		return
	}
	kept := s.pending[:0:0]
	for _, r := range s.pending {
		if at, ok := s.cuts[TopicPartition{r.Topic, r.Partition}]; !ok || r.Offset < at {
			kept = append(kept, r)
		}
	}
	s.pending = kept
	clear(s.cuts)
}

// gave notes how far the caller has polled, where that matters.
func (s *Session) gave(records []Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rewound {
		return
	}
	for i := range records {
		if h := s.held[TopicPartition{records[i].Topic, records[i].Partition}]; h != nil && h.polled >= 0 {
			h.polled = max(h.polled, records[i].Offset+1)
		}
	}
}
