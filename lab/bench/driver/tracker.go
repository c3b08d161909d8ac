package driver

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
)

// Sample is one acknowledged order, as the driver saw it.
type Sample struct {
	Sent    time.Time // when the request was to be sent
	Acked   time.Time // when its 202 was read
	Settled time.Time // when its terminal event was seen; zero until then
}

// Tracker brings together the two halves of an order: its acknowledgement, and its terminal event, which may be seen
// first.
type Tracker struct {
	mu      sync.Mutex
	samples []Sample
	waiting map[uuid.UUID]waiting
	early   map[uuid.UUID]time.Time

	// For the verification, to be read between loads.
	Acked   map[uuid.UUID]struct{} // the orders that were ever acknowledged
	Unknown int                    // requests whose outcome is not known: they may be stored
}

type waiting struct {
	sample int
	done   chan<- struct{} // may be nil
}

func newTracker() *Tracker {
	return &Tracker{waiting: map[uuid.UUID]waiting{}, early: map[uuid.UUID]time.Time{}, Acked: map[uuid.UUID]struct{}{}}
}

// Ack notes an acknowledged order. done, which needs room for one, is told when the order settles.
func (t *Tracker) Ack(id uuid.UUID, sent, acked time.Time, done chan<- struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Acked[id] = struct{}{}
	s := Sample{Sent: sent, Acked: acked}
	if at, ok := t.early[id]; ok {
		delete(t.early, id)
		s.Settled = at
		if done != nil {
			done <- struct{}{}
		}
	} else {
		t.waiting[id] = waiting{sample: len(t.samples), done: done}
	}
	t.samples = append(t.samples, s)
}

// Know notes orders that were placed before.
func (t *Tracker) Know(ids []uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.Acked[id] = struct{}{}
	}
}

// lost notes a request whose outcome is not known.
func (t *Tracker) lost() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Unknown++
}

// Settle notes terminal events.
func (t *Tracker) Settle(ids []uuid.UUID, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		w, ok := t.waiting[id]
		if !ok {
			if _, again := t.Acked[id]; !again { // an event that comes twice is no news
				t.early[id] = at
			}
			continue
		}
		delete(t.waiting, id)
		t.samples[w.sample].Settled = at
		if w.done != nil {
			w.done <- struct{}{}
		}
	}
}

// Take returns the samples since the last call. Orders that have not settled by then are left out of the next ones too.
func (t *Tracker) Take() []Sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.samples
	t.samples = make([]Sample, 0, len(taken))
	clear(t.waiting)
	return taken
}

// Counts returns how many orders were acknowledged since Take, and how many of them have not settled.
func (t *Tracker) Counts() (acked, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.samples), len(t.waiting)
}

// lastSettled is when the last of the orders since Take settled, and at least from.
func (t *Tracker) lastSettled(from time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.samples {
		if s.Settled.After(from) {
			from = s.Settled
		}
	}
	return from
}

// Drain waits until every acknowledged order has settled, or none has for the patience, and returns how many are left.
func (t *Tracker) Drain(ctx context.Context, patience time.Duration) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	least, since := -1, time.Now()
	for {
		_, open := t.Counts()
		switch {
		case open == 0:
			return 0
		case open != least:
			least, since = open, time.Now()
		case time.Since(since) > patience:
			return open
		}
		select {
		case <-ctx.Done():
			return open
		case <-tick.C:
		}
	}
}

// Watch feeds the tracker with terminal events until ctx ends.
func (t *Tracker) Watch(ctx context.Context, client *broker.Client, topics []string) error {
	cfg := broker.GroupConfig{Group: "bench-" + uuid.NewString(), Topics: topics}
	return client.Consume(ctx, cfg, func(ctx context.Context, s *broker.Session) {
		var ids []uuid.UUID
		for {
			polled, err := s.Poll(ctx, 10_000)
			if err != nil {
				return
			}
			at, records := time.Now(), polled.Records
			ids = ids[:0]
			for i := range records {
				if id, err := uuid.ParseBytes(records[i].Key); err == nil {
					ids = append(ids, id)
				}
			}
			t.Settle(ids, at)
		}
	})
}
