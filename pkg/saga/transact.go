package saga

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	inboxID  uuid.UUID // redriven: of its mark
	redrive  string    // the mark of a message that came back from a dead letter topic; ""
	attempts int       // of its handler, failed
	dead     error     // why it goes to the dead letter topic

	judged  bool  // it was looked at whether to skip it; see executor.pending
	skipped bool  // it is not this group's, or was handled so long ago that the inbox has forgotten it
	waits   bool  // it is in a lane
	parked  bool  // it has a row in the database until it is handled or buried
	last    bool  // its next attempt is its last
	failure error // of the handler, in the transaction that left it out
	held    bool  // left out, too, because one before it of its key was
}

// tried is how often the message was handled, or, if it cannot even be read, looked at.
func (it *item) tried() int { return max(1, it.attempts) }

// executor runs messages through one consumer group's handlers.
type executor struct {
	service string
	group   string
	routes  []Route
	db      pg.Beginner
	relay   *outbox.Relay
	log     *slog.Logger
	metrics *Metrics

	careful bool // the last messages were partly seen before: more may be
	past    past
	blamed  bool // the last error of a handler named its message
}

func (e *executor) item(r broker.Record) *item {
	it := &item{record: r, meta: decodeMeta(&r)}
	it.inboxID = it.meta.ID
	if mark := r.Header(headerRedrive); mark != "" && markedFor(mark) != "" {
		it.redrive, it.inboxID = mark, foreignID(mark, it.meta.ID.String())
	}
	return it
}

func (e *executor) route(topic string) int {
	return slices.IndexFunc(e.routes, func(r Route) bool { return r.topic == topic })
}

// how is the way to handle items.
type how struct {
	look bool // some may have been handled before
	sift bool // leave out those that fail: their failure or held is set. It looks first: one that was handled before can fail, too
}

// transact handles the items in one transaction: runs the handlers, records the messages in the inbox, and writes what
// they emit, and dead letters, to the outbox. On error nothing of it remains.
//
// Nearly always every message is new, so it does not look first, unless it has to: if one was handled before, recording
// it fails, and all is done again without those that the inbox knows.
func (e *executor) transact(ctx context.Context, items []*item, how how) error {
	if !how.look && !how.sift && !e.careful {
		if err := e.attempt(ctx, items, items, false); !inbox.Duplicate(err) {
			return err
		}
	}
	for {
		err := e.attempt(ctx, items, nil, how.sift)
		if !inbox.Duplicate(err) || ctx.Err() != nil {
			return err
		}
		// Another member recorded one between the look and the commit.
	}
}

// attempt does one transaction. fresh are the items to handle; nil: those that the inbox does not know.
func (e *executor) attempt(ctx context.Context, items, fresh []*item, sift bool) error {
	var hooks []func()
	ctx = context.WithValue(ctx, hooksKey{}, &hooks)
	looks := fresh == nil
	var handover *outbox.Handover
	var duplicates int
	err := pg.InTx(ctx, e.db, func(tx pgx.Tx) (err error) {
		if looks {
			if fresh, err = e.unseen(ctx, tx, items); err != nil {
				return err
			}
		} else {
			fresh = distinct(fresh, nil)
		}
		hooks = hooks[:0]
		for _, it := range items {
			it.failure, it.held = nil, false
		}
		var emitted writes
		if sift {
			emitted, err = e.sift(ctx, tx, fresh, &hooks)
		} else {
			emitted, err = e.handle(ctx, tx, fresh)
		}
		if err != nil {
			return err
		}
		duplicates = len(items) - len(fresh)
		fresh = passed(fresh)
		var b pgx.Batch
		e.unpark(&b, items)
		if !sabotage.SkipInbox {
			e.record(&b, fresh)
		}
		emitted.events = bypassed(ctx, emitted.events)
		if handover, err = emitted.queue(&b, e.relay, e.service); err != nil {
			return err
		}
		return pg.Defer(ctx, tx, &b)
	})
	handover.Done(err == nil)
	if err != nil {
		return err
	}
	e.careful = looks && duplicates > 0
	for _, it := range fresh {
		if it.dead == nil {
			continue
		}
		e.metrics.deadLetters.WithLabelValues(e.group, it.record.Topic).Inc()
		e.log.ErrorContext(withTrace(ctx, it.meta), "dead letter", "group", e.group, "topic", it.record.Topic, "partition", it.record.Partition,
			"offset", it.record.Offset, "key", it.meta.Key, "attempts", it.tried(), "reason", reason(it.dead))
	}
	e.metrics.batch.WithLabelValues(e.group).Observe(float64(len(items)))
	e.metrics.duplicates.WithLabelValues(e.group).Add(float64(duplicates))
	for _, hook := range hooks {
		e.runHook(ctx, hook)
	}
	return nil
}

// runHook runs what is to follow a commit. It cannot undo it: a panic is logged, and the other hooks run.
func (e *executor) runHook(ctx context.Context, hook func()) {
	defer func() {
		if p := recover(); p != nil {
			e.log.ErrorContext(ctx, "a hook panicked after the commit", "group", e.group, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	hook()
}

// record queues the inbox's rows. Those of redriven messages are kept for ever, under a name of their own.
func (e *executor) record(b *pgx.Batch, items []*item) {
	usual, redriven := inboxIDs(items)
	inbox.Record(b, e.group, usual)
	inbox.Record(b, e.group+inbox.Forever, redriven)
}

// unpark queues the statement that deletes the rows of those that do not wait any more.
func (e *executor) unpark(b *pgx.Batch, items []*item) {
	var rows []inbox.Parked
	for _, it := range items {
		if it.parked && it.failure == nil && !it.held {
			rows = append(rows, it.row())
		}
	}
	inbox.Unpark(b, e.group, rows)
}

// unseen returns the items that were not handled before, each id once, in order.
func (e *executor) unseen(ctx context.Context, tx pgx.Tx, items []*item) ([]*item, error) {
	usual, redriven := inboxIDs(items)
	seen, err := inbox.Seen(ctx, tx, e.group, usual)
	if err != nil {
		return nil, err
	}
	if len(redriven) > 0 {
		marks, err := inbox.Seen(ctx, tx, e.group+inbox.Forever, redriven)
		if err != nil {
			return nil, err
		}
		maps.Copy(seen, marks)
	}
	return distinct(items, seen), nil
}

// distinct returns the items whose ids are not in seen, each id once, in order.
func distinct(items []*item, seen map[uuid.UUID]bool) []*item {
	if seen == nil {
		seen = make(map[uuid.UUID]bool, len(items))
	}
	out := make([]*item, 0, len(items))
	for _, it := range items {
		if !seen[it.inboxID] {
			seen[it.inboxID] = true
			out = append(out, it)
		}
	}
	return out
}

func inboxIDs(items []*item) (usual, redriven []uuid.UUID) {
	usual = make([]uuid.UUID, 0, len(items))
	for _, it := range items {
		if it.redrive == "" {
			usual = append(usual, it.inboxID)
		} else {
			redriven = append(redriven, it.inboxID)
		}
	}
	return usual, redriven
}

// handle runs each route's handler with its messages and returns what is to be published.
func (e *executor) handle(ctx context.Context, tx pgx.Tx, items []*item) (emitted writes, err error) {
	works := make([]work, len(e.routes))
	picked := make([][]int, len(e.routes))
	for _, it := range items {
		if it.dead == nil {
			it.dead = e.decode(it, works, picked)
		}
		if it.dead != nil {
			emitted.events = append(emitted.events, deadLetter(e.group, it))
		}
	}
	for i, w := range works {
		if len(picked[i]) == 0 {
			continue
		}
		start := time.Now()
		outs, err := e.run(ctx, tx, w, picked[i])
		if err != nil {
			return writes{}, err
		}
		if err := e.routes[i].checkEmits(outs); err != nil {
			return writes{}, err
		}
		e.metrics.handler.WithLabelValues(e.group, e.routes[i].topic).Observe(time.Since(start).Seconds())
		encoded, err := encode(e.service, e.group, outs)
		if err != nil {
			e.logPanic(ctx, "encoding", err)
			return writes{}, err
		}
		emitted.append(encoded)
	}
	return emitted, nil
}

// decode puts the item among its route's messages. A tombstone that the route has not asked for is not put anywhere.
func (e *executor) decode(it *item, works []work, picked [][]int) (err error) {
	i := e.route(it.record.Topic)
	if i < 0 {
		return fmt.Errorf("%s has no handler of %s", e.group, it.record.Topic)
	}
	if it.meta.Tombstone && !e.routes[i].tombstones {
		return nil
	}
	if works[i] == nil {
		works[i] = e.routes[i].begin()
	}
	n, err := works[i].add(it.meta, &it.record)
	if err == nil {
		picked[i] = append(picked[i], n)
	} else {
		err = speak(err)
	}
	e.logPanic(withTrace(context.Background(), it.meta), "decoding", err)
	return err
}

func (e *executor) run(ctx context.Context, tx pgx.Tx, w work, picked []int) (outs []Out, err error) {
	defer func() { e.logPanic(ctx, "handler", err) }()
	defer recovered(&err)
	if outs, err = w.run(ctx, tx, picked); err != nil {
		err = speak(err)
	}
	return outs, err
}

// logPanic writes down where a panic came from, if err is one.
func (e *executor) logPanic(ctx context.Context, what string, err error) {
	if p, ok := errors.AsType[*panicError](err); ok {
		e.log.ErrorContext(ctx, what+" panicked", "group", e.group, "panic", p.value, "stack", string(p.stack))
	}
}

type hooksKey struct{}

// AfterCommit registers fn to run once after the commit of the transaction that a handler runs in, and never if it does
// not commit: for metrics, logs and waking those who wait, not for effects, since a crash in between loses it. It must
// not block.
func AfterCommit(ctx context.Context, fn func()) {
	if hooks, ok := ctx.Value(hooksKey{}).(*[]func()); ok {
		*hooks = append(*hooks, fn)
	}
}
