package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	firstWait  = 50 * time.Millisecond
	brokerWait = 500 * time.Millisecond // the longest wait for a broker that does not answer
	partWait   = 2 * time.Second        // and for a partition that fails
)

// manage looks up the leaders and the positions of the held partitions, and keeps a fetch loop for each broker that
// leads one.
func (s *Session) manage(ctx context.Context) {
	loops := map[int]bool{}
	for {
		moved := s.lead(ctx)
		resolved, failed := s.resolve(ctx)
		valid, invalid := s.validate(ctx)
		resolved, failed = resolved || valid, failed || invalid
		s.mu.Lock()
		for _, h := range s.held {
			if l := h.leader; l >= 0 && !loops[l] {
				loops[l] = true
				s.loops.Go(func() { s.fetchLoop(ctx, l) })
			}
		}
		if moved || resolved {
			close(s.changed)
			s.changed = make(chan struct{})
		}
		s.mu.Unlock()
		next := watchGap
		if failed {
			next = 4 * firstWait
		}
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-time.After(next):
		}
	}
}

// lead notes the leaders, and tells whether any has changed. A partition without one waits alone.
func (s *Session) lead(ctx context.Context) (moved bool) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s.client.forget(s.cfg.Topics...)
	leaders, err := s.client.leadersOf(ctx, s.cfg.Topics...)
	if err != nil {
		return false // the fetch loops say what fails
	}
	s.mu.Lock()
	doubt := s.doubt
	s.doubt = false
	s.mu.Unlock()
	var fresh map[string][]leader
	if doubt {
		fresh, _ = s.client.freshLeaders(ctx, s.cfg.Topics...) // the broker says again what it does not agree with
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for tp, h := range s.held {
		l, epoch := -1, noEpoch
		if parts := leaders[tp.Topic]; tp.Partition < len(parts) {
			l, epoch = parts[tp.Partition].id, parts[tp.Partition].epoch
		}
		switch parts := fresh[tp.Topic]; {
		case tp.Partition < len(parts) && parts[tp.Partition].id == l: // another one is to be found where kafka-go sends fetches
			epoch, h.agreed = parts[tp.Partition].epoch, now
		case l == h.leader && epoch < h.epoch && now.Sub(h.agreed) < 2*metadataRefresh: // the metadata may be older
			epoch = h.epoch
		}
		key := fmt.Sprintf("leader %s/%d", tp.Topic, tp.Partition)
		if l < 0 && len(leaders[tp.Topic]) > 0 { // a topic that is missing has a line of its own
			s.faults.Warn(ctx, s.cfg.Log, key, "partition has no leader; it waits", "group", s.cfg.Group, "topic", tp.Topic, "partition", tp.Partition)
		} else {
			s.faults.Over(ctx, s.cfg.Log, key, "partition has a leader again", "group", s.cfg.Group, "topic", tp.Topic, "partition", tp.Partition)
		}
		if l >= 0 && epoch != h.epoch {
			h.epoch, h.retry, moved = epoch, time.Time{}, true
		}
		moved = moved || l != h.leader
		h.leader = l
	}
	return moved
}

// portion is what a broker's loop is to fetch now. If that is nothing, it tells when to look again at the latest.
func (s *Session) portion(broker int) (from map[TopicPartition]epochOffset, of map[TopicPartition]*share, changed <-chan struct{}, again time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	from, of, again = map[TopicPartition]epochOffset{}, map[TopicPartition]*share{}, time.Minute
	for tp, h := range s.held {
		if h.leader != broker || h.next < 0 || h.outside || h.checked != h.epoch || s.going[tp] != nil {
			continue
		}
		if wait := h.retry.Sub(now); wait > 0 {
			again = min(again, wait)
			continue
		}
		from[tp], of[tp] = epochOffset{h.next, h.epoch}, h
	}
	return from, of, s.changed, again
}

// fetchLoop fetches what one broker leads of the held partitions, one request at a time, until ctx ends.
func (s *Session) fetchLoop(ctx context.Context, broker int) {
	var session fetchSession
	key, wait := fmt.Sprintf("broker %d", broker), firstWait
	for ctx.Err() == nil {
		from, of, changed, again := s.portion(broker)
		if len(from) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			case <-time.After(again):
			}
			continue
		}
		for tp := range session.sent {
			if _, ok := from[tp]; !ok {
				session.failed() // the broker would go on with it
			}
		}
		f, err := s.fetchOnce(ctx, from, min(s.cfg.MaxWait, again), &session, changed)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errChanged):
			continue
		case err != nil:
			s.faults.Warn(ctx, s.cfg.Log, key, "fetch waits for a broker", "group", s.cfg.Group, "broker", broker, "error", err)
			signal(s.kick) // its partitions may have another leader by now
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, brokerWait)
			continue
		}
		wait = firstWait
		s.faults.Over(ctx, s.cfg.Log, key, "broker answers fetches again", "group", s.cfg.Group, "broker", broker)
		s.advance(ctx, f, from, of)
		if len(f.records) == 0 {
			continue
		}
		d := delivery{f.records, of, make(chan struct{})}
		select {
		case s.out <- d:
		case <-ctx.Done():
			return
		}
		select {
		case <-d.more:
		case <-ctx.Done():
			return
		}
	}
}

// errChanged says that a fetch was given up because there is something else to fetch.
var errChanged = errors.New("the partitions have changed")

// fetchOnce is one fetch, which ends early when the partitions change: what is new does not wait for the poll of what
// was there.
func (s *Session) fetchOnce(ctx context.Context, from map[TopicPartition]epochOffset, maxWait time.Duration, session *fetchSession, changed <-chan struct{}) (fetched, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	s.loops.Go(func() {
		select {
		case <-changed:
			cancel(errChanged)
		case <-done:
		}
	})
	f, err := s.client.fetch(ctx, from, maxWait, session)
	close(done)
	if err != nil && errors.Is(context.Cause(ctx), errChanged) {
		return f, errChanged
	}
	return f, err
}

// advance moves the positions on, and gives each partition that failed a back-off of its own. It leaves out of the
// shares, and so of what Poll returns, those in which something else was to be fetched meanwhile.
func (s *Session) advance(ctx context.Context, f fetched, from map[TopicPartition]epochOffset, of map[TopicPartition]*share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for tp, h := range of {
		if s.held[tp] != h || h.next != from[tp].offset || h.checked != from[tp].epoch {
			delete(of, tp)
			continue
		}
		if f.errs[tp] == nil {
			h.reached = from[tp].epoch
			s.good[tp] = now
			h.endAt = now
		}
	}
	for tp, next := range f.next {
		h := of[tp]
		if h == nil {
			continue
		}
		h.next = next
		h.epochs.add(f.epochs[tp]...)
		if h.wait > 0 {
			h.wait = 0
			s.faults.Over(ctx, s.cfg.Log, faultOf(tp), "partition can be fetched again", "group", s.cfg.Group, "topic", tp.Topic, "partition", tp.Partition)
		}
	}
	for i := range f.records {
		r := &f.records[i]
		if h := of[TopicPartition{r.Topic, r.Partition}]; h != nil {
			h.ages.add(r.Offset, r.Time)
		}
	}
	for tp, end := range f.end {
		if h := of[tp]; h != nil {
			h.sawEnd(end, now)
		}
	}
	for tp, err := range f.errs {
		h := of[tp]
		if h == nil {
			continue
		}
		signal(s.kick)
		if errors.Is(err, kafka.OffsetOutOfRange) {
			h.outside = true
			continue
		}
		s.doubt = s.doubt || fenced(err)
		s.later(ctx, h, "fetch", err)
	}
}

func faultOf(tp TopicPartition) string { return fmt.Sprintf("partition %s/%d", tp.Topic, tp.Partition) }

// later gives a partition a back-off, and says why. The caller holds mu.
func (s *Session) later(ctx context.Context, h *share, what string, err error) {
	h.wait = min(max(2*h.wait, firstWait), partWait)
	h.retry = time.Now().Add(h.wait)
	s.faults.Warn(ctx, s.cfg.Log, faultOf(h.tp), "partition waits", "group", s.cfg.Group, "topic", h.tp.Topic, "partition", h.tp.Partition,
		"step", what, "error", err)
}
