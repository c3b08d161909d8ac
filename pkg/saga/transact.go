package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/internal/sabotage"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
)

// item is a received message on its way through a transaction.
type item struct {
	record   broker.Record
	meta     Meta
	inboxID  uuid.UUID
	attempts int   // of its handler, failed
	dead     error // why it goes to the dead letter topic
}

// tried is how often the message was handled, or, if it cannot even be read, looked at.
func (it *item) tried() int { return max(1, it.attempts) }

// executor runs messages through one consumer group's handlers.
type executor struct {
	service string
	group   string
	routes  []Route
	db      pg.Beginner
	log     *slog.Logger
	metrics *Metrics
}

func (e *executor) item(r broker.Record) *item {
	it := &item{record: r}
	it.meta, it.inboxID = decodeMeta(e.group, &r)
	return it
}

func (e *executor) route(topic string) int {
	return slices.IndexFunc(e.routes, func(r Route) bool { return r.topic == topic })
}

// errPanic is a handler's panic, as an error like any other: a message that makes a handler panic must not stop the others.
var errPanic = errors.New("handler panicked")

// transact handles the items in one transaction: claims them in the inbox, runs the handlers with those that are new, and
// writes what they emit, and dead letters, to the outbox. On error nothing of it remains.
func (e *executor) transact(ctx context.Context, items []*item) error {
	var hooks []func()
	ctx = context.WithValue(ctx, hooksKey{}, &hooks)
	var buried []*item
	duplicates := 0
	err := pg.InTx(ctx, e.db, func(tx pgx.Tx) error {
		hooks = hooks[:0]
		fresh, err := e.claim(ctx, tx, items)
		if err != nil {
			return err
		}
		duplicates = len(items) - len(fresh)
		msgs, err := e.handle(ctx, tx, fresh)
		if err != nil {
			return err
		}
		buried = slices.DeleteFunc(fresh, func(it *item) bool { return it.dead == nil })
		return outbox.Insert(ctx, tx, bypassed(ctx, msgs))
	})
	if err != nil {
		return err
	}
	for _, it := range buried {
		e.metrics.deadLetters.WithLabelValues(e.group, it.record.Topic).Inc()
		e.log.ErrorContext(withTrace(ctx, it.meta), "dead letter", "group", e.group, "topic", it.record.Topic, "partition", it.record.Partition,
			"offset", it.record.Offset, "key", it.meta.Key, "attempts", it.tried(), "reason", it.dead)
	}
	e.metrics.batch.WithLabelValues(e.group).Observe(float64(len(items)))
	e.metrics.duplicates.WithLabelValues(e.group).Add(float64(duplicates))
	for _, hook := range hooks {
		hook()
	}
	return nil
}

// claim returns the items that were not handled before, each id once, in order.
func (e *executor) claim(ctx context.Context, tx pgx.Tx, items []*item) ([]*item, error) {
	if sabotage.SkipInbox {
		return slices.Clone(items), nil
	}
	ids := make([]uuid.UUID, len(items))
	for i, it := range items {
		ids[i] = it.inboxID
	}
	fresh, err := inbox.Claim(ctx, tx, e.group, ids)
	if err != nil {
		return nil, err
	}
	out := make([]*item, 0, len(fresh))
	for _, it := range items {
		if fresh[it.inboxID] {
			delete(fresh, it.inboxID)
			out = append(out, it)
		}
	}
	return out, nil
}

// handle runs each route's handler with its messages and returns what is to be published.
func (e *executor) handle(ctx context.Context, tx pgx.Tx, items []*item) ([]outbox.Message, error) {
	works := make([]work, len(e.routes))
	picked := make([][]int, len(e.routes))
	var msgs []outbox.Message
	for _, it := range items {
		if it.dead == nil {
			it.dead = e.decode(it, works, picked)
		}
		if it.dead != nil {
			msgs = append(msgs, deadLetter(e.group, it))
		}
	}
	for i, w := range works {
		if len(picked[i]) == 0 {
			continue
		}
		start := time.Now()
		outs, err := e.run(ctx, tx, w, picked[i])
		if err != nil {
			return nil, err
		}
		if err := e.routes[i].checkEmits(outs); err != nil {
			return nil, err
		}
		e.metrics.handler.WithLabelValues(e.group, e.routes[i].topic).Observe(time.Since(start).Seconds())
		encoded, err := encode(e.service, e.group, outs)
		if err != nil {
			return nil, err
		}
		msgs = append(msgs, encoded...)
	}
	return msgs, nil
}

func (e *executor) decode(it *item, works []work, picked [][]int) error {
	i := e.route(it.record.Topic)
	if i < 0 {
		return fmt.Errorf("%s has no handler of %s", e.group, it.record.Topic)
	}
	if works[i] == nil {
		works[i] = e.routes[i].begin()
	}
	n, err := works[i].add(it.meta, it.record.Value)
	if err == nil {
		picked[i] = append(picked[i], n)
	}
	return err
}

func (e *executor) run(ctx context.Context, tx pgx.Tx, w work, picked []int) (outs []Out, err error) {
	defer func() {
		if p := recover(); p != nil {
			e.log.ErrorContext(ctx, "handler panicked", "group", e.group, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	return w.run(ctx, tx, picked)
}

type hooksKey struct{}

// AfterCommit registers fn to run once after the commit of the transaction that a handler runs in, and never if it
// does not commit: for metrics and logs, not for effects, since a crash in between loses it.
func AfterCommit(ctx context.Context, fn func()) {
	if hooks, ok := ctx.Value(hooksKey{}).(*[]func()); ok {
		*hooks = append(*hooks, fn)
	}
}
