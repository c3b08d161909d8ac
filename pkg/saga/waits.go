package saga

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// loadLimit is how many messages of a lane are read from the database at once.
const loadLimit = 100

// retryDue tries the messages whose time has come, and those of their keys behind them, together: at most a batch.
func (h *session) retryDue(ctx, work context.Context) error {
	var items []*item
	for _, key := range h.lanes.due(time.Now()) {
		if len(items) >= h.MaxBatch {
			break
		}
		lane := h.lanes.byKey[key]
		if len(lane.items) == 0 {
			if h.lanes.full() {
				continue
			}
			if err := h.load(ctx, work, key); err != nil {
				return err
			}
			if lane = h.lanes.byKey[key]; lane == nil {
				continue
			}
		}
		for _, it := range lane.items[:min(len(lane.items), h.MaxBatch-len(items))] {
			it.last = it.last || lane.last
			if it.dead == nil {
				it.dead = lane.doom
			}
			items = append(items, it)
		}
	}
	if len(items) == 0 {
		return nil
	}
	return h.settle(ctx, work, items, how{look: true, sift: true}) // those that were handled before can fail, too
}

// spill moves what has no room in memory to the database.
func (h *session) spill(ctx, work context.Context) error {
	surplus := h.lanes.surplus()
	if len(surplus) == 0 {
		return nil
	}
	var rows []inbox.Parked
	for key, items := range surplus {
		for _, it := range items {
			m := it.row()
			m.Lane, m.Key, m.Value, m.Attempts, m.Last = key, it.record.Key, it.record.Value, it.attempts, it.last || h.lanes.byKey[key].last
			for _, header := range it.record.Headers {
				m.Headers = append(m.Headers, inbox.Header{Name: []byte(header.Key), Value: header.Value})
			}
			rows = append(rows, m)
		}
	}
	err := h.patiently(ctx, work, func(ctx context.Context, tx pgx.Tx) error {
		var b pgx.Batch
		if err := inbox.Park(&b, h.group, rows); err != nil {
			return err
		}
		return pg.Defer(ctx, tx, &b)
	})
	if err == nil {
		h.lanes.stored(surplus)
	}
	return err
}

// row identifies the item's row, if it has one.
func (it *item) row() inbox.Parked {
	return inbox.Parked{Place: inbox.Place{Topic: it.record.Topic, Partition: it.record.Partition}, Offset: it.record.Offset, Time: it.record.Time}
}

// load reads the first messages of a lane that wait in the database.
func (h *session) load(ctx, work context.Context, key string) error {
	var rows []inbox.Parked
	err := h.patiently(ctx, work, func(ctx context.Context, tx pgx.Tx) (err error) {
		rows, err = inbox.NextParked(ctx, tx, h.group, key, h.partitions(), loadLimit)
		return err
	})
	if err != nil {
		return err
	}
	items := make([]*item, len(rows))
	for i, m := range rows {
		r := broker.Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time}
		for _, header := range m.Headers {
			r.Headers = append(r.Headers, broker.Header{Key: string(header.Name), Value: header.Value})
		}
		items[i] = h.item(r)
		items[i].attempts, items[i].last, items[i].parked, items[i].judged = m.Attempts, m.Last, true, true
	}
	h.lanes.loaded(key, items)
	return nil
}

// mine returns the items that are for this group to handle or to look up in the inbox: what is left out here never
// waits in a lane.
func (h *session) mine(ctx, work context.Context, items []*item) ([]*item, error) {
	mine, err := h.pending(work, items)
	if err == nil {
		return mine, nil
	}
	err = h.patiently(ctx, work, func(ctx context.Context, _ pgx.Tx) error { // the floors could not be read
		mine, err = h.pending(ctx, items)
		return err
	})
	return mine, err
}

// adopt looks which keys of new partitions have messages in the database: the next of these keys follow them.
func (h *session) adopt(ctx, work context.Context, partitions []broker.TopicPartition) error {
	var places []inbox.Place
	for _, tp := range partitions {
		if !h.known[tp] {
			h.known[tp] = true
			places = append(places, inbox.Place{Topic: tp.Topic, Partition: tp.Partition})
		}
	}
	if len(places) == 0 {
		return nil
	}
	var rows map[string]int
	err := h.patiently(ctx, work, func(ctx context.Context, tx pgx.Tx) (err error) {
		rows, err = inbox.ParkedLanes(ctx, tx, h.group, places)
		return err
	})
	h.lanes.found(rows)
	return err
}

func (h *session) partitions() []inbox.Place {
	places := make([]inbox.Place, 0, len(h.known))
	for tp := range h.known {
		places = append(places, inbox.Place{Topic: tp.Topic, Partition: tp.Partition})
	}
	return places
}

// patiently runs fn in a transaction until it passes or the membership ends. Whatever it fails with, there is nothing
// else to do: the messages cannot be handled in order without it.
func (h *session) patiently(ctx, work context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = 20*time.Millisecond, 2*time.Second
	for {
		attempt, cancel := context.WithTimeout(work, h.Timeout)
		err := pg.InTx(attempt, h.db, func(tx pgx.Tx) error { return fn(attempt, tx) })
		cancel()
		if err == nil {
			h.quiet.Over(work, h.Log, "parked", "messages can wait in the database again", "group", h.group)
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(errStopped, err)
		}
		h.Metrics.retries.WithLabelValues(h.group, "fault").Inc()
		h.quiet.Warn(work, h.Log, "parked", "no access to messages that wait in the database", "group", h.group, "error", err)
		select {
		case <-ctx.Done():
			return errStopped
		case <-time.After(wait.NextBackOff()):
		}
	}
}
