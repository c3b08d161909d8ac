package saga

import (
	"context"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// Consume hands records to a service's consumer in polls of n and returns when all were handled or buried.
func Consume(ctx context.Context, svc Service, cfg Config, records []broker.Record, n int) error {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		return err
	}
	h := newConsumer(svc.Name, svc.Name, groups[svc.Name], cfg).newSession()
	for len(records) > 0 || h.lanes.size() > 0 {
		poll := records[:min(n, len(records))]
		records = records[len(poll):]
		if at, ok := h.lanes.next(); ok && len(poll) == 0 {
			<-time.After(time.Until(at))
		}
		if err := h.handle(ctx, ctx, poll); err != nil {
			return err
		}
	}
	return nil
}

// Session is a member's, without Kafka.
type Session struct{ h *session }

// NewSession makes the session of a service's own group.
func NewSession(svc Service, cfg Config) *Session {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		panic(err)
	}
	return &Session{newConsumer(svc.Name, svc.Name, groups[svc.Name], cfg).newSession()}
}

// Handle handles a poll's records and what is due, until ctx ends.
func (s *Session) Handle(ctx context.Context, records []broker.Record) error {
	return s.h.handle(ctx, ctx, records)
}

// Adopt looks for parked messages of a partition.
func (s *Session) Adopt(ctx context.Context, tp broker.TopicPartition) error {
	return s.h.adopt(ctx, ctx, []broker.TopicPartition{tp})
}

// Leave forgets a partition.
func (s *Session) Leave(tp broker.TopicPartition) { s.h.forget([]broker.TopicPartition{tp}) }

// Committed are the offsets that would be committed now.
func (s *Session) Committed() map[broker.TopicPartition]int64 {
	s.h.progress.undone()
	return s.h.progress.take(s.h.lanes)
}

// Waiting is what waits, in memory and in the database.
func (s *Session) Waiting() (count, bytes, rows int) {
	return s.h.lanes.count, s.h.lanes.bytes, s.h.lanes.rows
}
