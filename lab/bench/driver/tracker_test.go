package driver

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestTrackerMeetsEventsInAnyOrder(t *testing.T) {
	t.Parallel()
	tr, start := newTracker(), time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	ids := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	done := make(chan struct{}, 1)

	tr.Settle(ids[:1], at(3)) // the event is seen before the answer
	tr.Ack(ids[0], at(0), at(4), done)
	<-done
	tr.Ack(ids[1], at(1), at(2), done)
	tr.Settle(ids[1:2], at(5))
	<-done
	tr.Settle(ids[:2], at(9)) // published again
	tr.Ack(ids[2], at(2), at(3), nil)

	if acked, open := tr.Counts(); acked != 3 || open != 1 {
		t.Errorf("%d acknowledged, %d open; want 3 and 1", acked, open)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if open := tr.Drain(ctx, time.Minute); open != 1 {
		t.Errorf("%d left over, want 1", open)
	}
	want := []Sample{{at(0), at(4), at(3)}, {at(1), at(2), at(5)}, {Sent: at(2), Acked: at(3)}}
	if got := tr.Take(); !slices.Equal(got, want) {
		t.Errorf("samples %v, want %v", got, want)
	}
	if len(tr.early) != 0 {
		t.Errorf("%d events wait for an acknowledgement that was there", len(tr.early))
	}
}
