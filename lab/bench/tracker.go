package bench

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/broker"
)

// sample is one acknowledged order, as the driver saw it.
type sample struct {
	sent    time.Time // when the request was to be sent
	acked   time.Time // when its 202 was read
	settled time.Time // when its terminal event was seen; zero until then
}

// tracker brings together the two halves of an order: its acknowledgement, and its terminal event, which may be seen first.
type tracker struct {
	mu      sync.Mutex
	samples []sample
	waiting map[uuid.UUID]waiting
	early   map[uuid.UUID]time.Time

	acked   map[uuid.UUID]struct{} // ever, for the verification
	unknown int                    // requests whose outcome is not known: they may be stored
}

type waiting struct {
	sample int
	done   chan<- struct{} // may be nil
}

func newTracker() *tracker {
	return &tracker{waiting: map[uuid.UUID]waiting{}, early: map[uuid.UUID]time.Time{}, acked: map[uuid.UUID]struct{}{}}
}

// ack notes an acknowledged order. done, which needs room for one, is told when the order settles.
func (t *tracker) ack(id uuid.UUID, sent, acked time.Time, done chan<- struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked[id] = struct{}{}
	s := sample{sent: sent, acked: acked}
	if at, ok := t.early[id]; ok {
		delete(t.early, id)
		s.settled = at
		if done != nil {
			done <- struct{}{}
		}
	} else {
		t.waiting[id] = waiting{sample: len(t.samples), done: done}
	}
	t.samples = append(t.samples, s)
}

// know notes orders that were placed before.
func (t *tracker) know(ids []uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		t.acked[id] = struct{}{}
	}
}

// lost notes a request whose outcome is not known.
func (t *tracker) lost() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unknown++
}

// settle notes terminal events.
func (t *tracker) settle(ids []uuid.UUID, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		w, ok := t.waiting[id]
		if !ok {
			if _, again := t.acked[id]; !again { // an event that comes twice is no news
				t.early[id] = at
			}
			continue
		}
		delete(t.waiting, id)
		t.samples[w.sample].settled = at
		if w.done != nil {
			w.done <- struct{}{}
		}
	}
}

// take returns the samples since the last call. Orders that have not settled by then are left out of the next ones too.
func (t *tracker) take() []sample {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.samples
	t.samples = make([]sample, 0, len(taken))
	clear(t.waiting)
	return taken
}

// counts returns how many orders were acknowledged since take, and how many of them have not settled.
func (t *tracker) counts() (acked, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.samples), len(t.waiting)
}

// lastSettled is when the last of the orders since take settled, and at least from.
func (t *tracker) lastSettled(from time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.samples {
		if s.settled.After(from) {
			from = s.settled
		}
	}
	return from
}

// drain waits until every acknowledged order has settled, or none has for the patience, and returns how many are left.
func (t *tracker) drain(ctx context.Context, patience time.Duration) int {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	least, since := -1, time.Now()
	for {
		_, open := t.counts()
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

// watch feeds the tracker with terminal events until ctx ends.
func (t *tracker) watch(ctx context.Context, client *broker.Client, topics []string) error {
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
			t.settle(ids, at)
		}
	})
}
