package saga

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/pg"
)

// past recognises messages that are older than the inbox remembers. They come when a group begins anew: Kafka forgets
// the offsets of a group without members, an operator sets it back, a topic is cut off. Such a message below the
// group's floor was handled. What is younger is the inbox's to decide, as always, and so is what lies above the floor:
// a group that is behind by more than the inbox's retention has not handled it.
type past struct {
	retention time.Duration

	mu     sync.Mutex
	floors map[broker.TopicPartition]int64 // nil: not loaded
	next   map[broker.TopicPartition]int64 // after the last old message of each partition
	runs   map[broker.TopicPartition]bool  // in which partitions the last messages were of the past

	quiet quiet.Log
}

// pending returns the items that are for this group to handle or to look up in the inbox. It leaves out, and counts as
// duplicates, those that another group had redriven, and those of a past that the inbox has forgotten.
//
// An item is judged once, when it is new: one that waits for a retry stays, wherever the floor is by then.
func (e *executor) pending(ctx context.Context, items []*item) ([]*item, error) {
	before := clock.Now().Add(-e.past.retention)
	skipped := 0
	for _, it := range items {
		if !it.judged {
			if err := e.judge(ctx, it, before); err != nil {
				return nil, err
			}
		}
		if it.skipped {
			skipped++
		}
	}
	if skipped == 0 {
		return items, nil
	}
	return slices.DeleteFunc(slices.Clone(items), func(it *item) bool { return it.skipped }), nil
}

func (e *executor) judge(ctx context.Context, it *item, before time.Time) (err error) {
	switch {
	case it.redrive != "" && markedFor(it.redrive) != e.group:
		it.skipped = true
	case old(it, before):
		if it.skipped, err = e.forgotten(ctx, it); err != nil {
			return err
		}
	default:
		e.pastOver(ctx, it)
	}
	it.judged = true
	if it.skipped {
		e.metrics.duplicates.WithLabelValues(e.group).Inc()
	}
	return nil
}

// old tells whether the inbox may have forgotten the message. A record without a time does not come from Kafka.
func old(it *item, before time.Time) bool {
	return it.record.Time.Before(before) && it.meta.Time.Before(before) && !it.record.Time.IsZero()
}

// forgotten tells whether an old message lies below the floor. It reads the floors when it needs them first, and again
// when a partition goes on from an earlier offset.
func (e *executor) forgotten(ctx context.Context, it *item) (bool, error) {
	tp, p := it.partition(), &e.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.floors == nil || it.record.Offset < p.next[tp] {
		floors, err := e.readFloors(ctx)
		if err != nil {
			return false, err
		}
		p.floors, p.next, p.runs = floors, map[broker.TopicPartition]int64{}, map[broker.TopicPartition]bool{}
	}
	p.next[tp] = it.record.Offset + 1
	if it.record.Offset >= p.floors[tp] {
		return false, nil
	}
	p.runs[tp] = true
	p.quiet.Warn(ctx, e.log, nameOf(tp), "skipping messages that are older than the inbox and below the group's floor: they were handled",
		"group", e.group, "topic", tp.Topic, "partition", tp.Partition, "offset", it.record.Offset, "floor", p.floors[tp])
	return true, nil
}

// pastOver logs how many messages of the past there were, when a younger one of their partition comes.
func (e *executor) pastOver(ctx context.Context, it *item) {
	p := &e.past
	p.mu.Lock()
	defer p.mu.Unlock()
	if tp := it.partition(); len(p.runs) > 0 && p.runs[tp] {
		delete(p.runs, tp)
		p.quiet.Over(ctx, e.log, nameOf(tp), "skipped messages of the past", "group", e.group, "topic", tp.Topic, "partition", tp.Partition,
			"offset", it.record.Offset)
	}
}

func nameOf(tp broker.TopicPartition) string { return tp.Topic + "/" + strconv.Itoa(tp.Partition) }

func (it *item) partition() broker.TopicPartition {
	return broker.TopicPartition{Topic: it.record.Topic, Partition: it.record.Partition}
}

func (e *executor) readFloors(ctx context.Context) (map[broker.TopicPartition]int64, error) {
	noted, err := e.notedFloors(ctx)
	floors := make(map[broker.TopicPartition]int64, len(noted))
	for _, f := range noted {
		floors[broker.TopicPartition{Topic: f.Topic, Partition: f.Partition}] = f.Next
	}
	return floors, err
}

func (e *executor) notedFloors(ctx context.Context) (noted []inbox.Floor, err error) {
	err = pg.InTx(ctx, e.db, func(tx pgx.Tx) (err error) {
		noted, err = inbox.Floors(ctx, tx, e.group)
		return err
	})
	return noted, err
}

// floorSlack is how far the clocks of a producer and of the database may differ.
const floorSlack = time.Hour

// floor is how far the database knows the group was, for partitions of which Kafka has no offset of it. A floor is of
// another topic of the same name if what lies just below it was written after it was noted: it is forgotten.
func (c *consumer) floor(ctx context.Context) (map[broker.TopicPartition]int64, error) {
	noted, err := c.notedFloors(ctx)
	if err != nil {
		return nil, err
	}
	floors := map[broker.TopicPartition]int64{}
	for _, f := range noted {
		if c.route(f.Topic) < 0 || f.Next == 0 {
			continue
		}
		tp := broker.TopicPartition{Topic: f.Topic, Partition: f.Partition}
		last, err := c.Broker.ReadAt(ctx, f.Topic, f.Partition, f.Next-1)
		switch {
		case errors.Is(err, broker.ErrGone): // by retention, or the log ends before it, which the broker's client finds out
		case err != nil:
			return nil, err
		case last.Time.After(f.Noted.Add(floorSlack)):
			if err := c.truncated(ctx, tp, f.Next, 0); err != nil {
				return nil, err
			}
			continue
		}
		floors[tp] = f.Next
	}
	c.past.reset()
	return floors, nil
}

// truncated forgets the floor of a partition whose log ends before it, or is another: its offsets mean other messages.
func (c *consumer) truncated(ctx context.Context, tp broker.TopicPartition, was, end int64) error {
	c.Log.Warn("the topic was cut off or made anew; what it has now is not known by its offsets", "group", c.group,
		"topic", tp.Topic, "partition", tp.Partition, "position", was, "end", end)
	err := pg.InTx(ctx, c.db, func(tx pgx.Tx) error { return inbox.Forget(ctx, tx, c.group, tp.Topic, tp.Partition) })
	c.past.reset()
	return err
}

// reset has the floors read again when they are needed.
func (p *past) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.floors = nil
}
