package saga

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/timer"
)

// timing says when an event is published.
type timing struct {
	kind timingKind
	in   time.Duration
	at   time.Time
}

type timingKind int

const (
	publishNow   timingKind = iota // by the transaction that emits it
	publishAfter                   // when in has passed
	publishAt                      // at a time
	cancelTimer                    // not at all
)

// After makes timers of events: they are published when d has passed since the transaction, and not by it. A handler
// returns them and a request hands them to [Queue] or [Publish], like other events:
//
//	return saga.After(24*time.Hour, saga.Emit(m, shipmentLate, late{m.Key})...), nil
//
// Each is published exactly once, by whichever instance of the service, within a second of its time and in the order of
// the times, unless it is cancelled by [Cancel] before. A service has one timer for each topic and key: another one
// replaces it. The event has the trace, the cause and the id that it would have without After, but an id of its own
// beside an event of the same cause that is published at once; its time is when it is due. Its handler checks that it
// is still wanted: a cancellation may come when it is on its way already.
//
// What is due at once, or in the past, is published within a moment.
func After(d time.Duration, events ...Out) []Out {
	return timed(timing{kind: publishAfter, in: d}, events)
}

// At is [After] with a time, such as a deadline that the event itself tells.
func At(t time.Time, events ...Out) []Out {
	return timed(timing{kind: publishAt, at: t}, events)
}

// Cancel stops the service's timer for a topic and a key, in the transaction that it is returned or queued in. It does
// nothing where there is none: it was cancelled or published before, or never set. The handler's route declares the
// topic.
func Cancel(topic AnyTopic, key string) []Out {
	return []Out{{Topic: topic.Name(), Key: key, timing: timing{kind: cancelTimer}}}
}

func timed(t timing, events []Out) []Out {
	events = slices.Clone(events)
	for i := range events {
		events[i].timing = t
	}
	return events
}

// due is when the event is to be published.
func (t timing) due(from time.Time) time.Time {
	switch t.kind {
	case publishAfter:
		return from.Add(t.in)
	case publishAt:
		return t.at
	default:
		return from
	}
}

// writes are what a transaction emits.
type writes struct {
	events []outbox.Message
	timers []timer.Change
}

// add puts an encoded event where it belongs.
func (w *writes) add(o *Out, m outbox.Message) {
	if o.timing.kind == publishNow {
		w.events = append(w.events, m)
		return
	}
	w.timers = append(w.timers, timer.Change{
		Message: m, In: o.timing.in, At: o.timing.at, Cancel: o.timing.kind == cancelTimer,
	})
}

func (w *writes) append(more writes) {
	w.events = append(w.events, more.events...)
	w.timers = append(w.timers, more.timers...)
}

// queue adds the statements that write it, for a relay to take over when their transaction is done.
func (w *writes) queue(b *pgx.Batch, relay *outbox.Relay, service string) (*outbox.Handover, error) {
	if err := timer.Queue(b, service, w.timers); err != nil {
		return nil, err
	}
	handover, err := relay.Queue(b, w.events)
	if in, ok := timer.Soonest(w.timers); ok && err == nil {
		handover = relay.Due(handover, in)
	}
	return handover, err
}

// insert writes it in tx. Nobody is told after the commit.
func (w *writes) insert(ctx context.Context, tx outbox.Sender, service string) error {
	var b pgx.Batch
	if _, err := w.queue(&b, nil, service); err != nil || b.Len() == 0 {
		return err
	}
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("write outbox: %w", err)
	}
	return nil
}
