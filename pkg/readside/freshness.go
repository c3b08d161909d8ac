package readside

import (
	"context"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

const (
	measureEvery  = 100 * time.Millisecond
	measureWithin = 2 * time.Second
)

// Freshness tells how far behind a read side can be, by asking Kafka what its group has not handled. It asks when it is
// asked itself, and at most ten times a second.
type Freshness struct {
	oldest func(ctx context.Context) (time.Time, error) // of the events that wait; zero: none does
	now    func() time.Time

	asking sync.Mutex // held by who asks Kafka

	mu    sync.Mutex
	since time.Time // everything that was in the topics by then is applied; zero: not known yet
	asked time.Time
}

// NewFreshness is that of a side. The time is the machine's, as Kafka's is.
func NewFreshness(s Side, client *broker.Client) *Freshness {
	topics := s.Service().ReactsTo()
	return &Freshness{
		oldest: func(ctx context.Context) (time.Time, error) { return client.Oldest(ctx, s.Name, topics...) },
		now:    time.Now,
	}
}

// Since returns a moment such that everything that was in the topics by then can be read from now on; zero when that
// cannot be told. While Kafka cannot be asked the moment stays where it is.
func (f *Freshness) Since(ctx context.Context) time.Time {
	f.mu.Lock()
	since, due := f.since, f.now().Sub(f.asked) >= measureEvery
	f.mu.Unlock()
	if !due {
		return since
	}
	if since.IsZero() {
		f.asking.Lock() // there is nothing to say until somebody has asked
	} else if !f.asking.TryLock() {
		return since
	}
	defer f.asking.Unlock()
	f.mu.Lock()
	began, asked := f.now(), f.asked
	since = f.since
	f.mu.Unlock()
	if began.Sub(asked) < measureEvery { // somebody else has, while this one waited
		return since
	}
	// Others use the answer, too: it is not lost with the one who happened to ask.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), measureWithin)
	defer cancel()
	at, err := f.oldest(ctx)

	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = f.now()
	if err == nil {
		if at.IsZero() {
			at = began
		}
		f.since = at
	} else {
		f.asked = f.asked.Add(time.Second - measureEvery) // it is away; reads need not wait for it each time
	}
	return f.since
}
