package saga

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/pg"
)

// errStopped says that the membership ended before a batch could be handled: its messages will be delivered again.
var errStopped = errors.New("stopped")

// Blame says which message of a batch an [OnBatch] handler failed at: those before it are handled, it is tried again
// later, and the handler goes on behind it. Without that the batch is split until the message is found. [On] does it by
// itself.
func Blame(m Meta, err error) error {
	if err == nil {
		return nil
	}
	return &blameError{m, err}
}

type blameError struct {
	of  Meta
	err error
}

func (e *blameError) Error() string { return e.err.Error() }
func (e *blameError) Unwrap() error { return e.err }

// blamed is the index of the item that err names, or -1.
func blamed(items []*item, err error) int {
	if b, ok := errors.AsType[*blameError](err); ok {
		for i, it := range items {
			if it.meta.ID == b.of.ID && it.record.Topic == b.of.Topic {
				return i
			}
		}
	}
	return -1
}

// waryFor is for how many batches after one that failed the next are expected to fail, and handled in steps at once.
const waryFor = 16

// How many messages are handled in one step. With one in a hundred that fails, three in four of the shorter ones pass.
// Where the handler names the message there is nothing to look for, so that a step may be longer.
const (
	stepSize       = 32
	blamedStepSize = 128
)

// batch handles items in one transaction, or, if that fails, in one that leaves out those that fail. What fails goes to
// the lanes. It returns errStopped when the membership ended first.
func (h *session) batch(ctx, work context.Context, items []*item) error {
	free := items[:0:0]
	for _, it := range items {
		if !h.lanes.follow(it) {
			free = append(free, it)
		}
	}
	if len(free) > 0 {
		if err := h.settle(ctx, work, free, how{sift: h.wary > 0}); err != nil {
			return err
		}
		if h.wary > 0 {
			if h.wary--; h.wary == 0 {
				h.quiet.Over(work, h.Log, "batch", "batches pass again", "group", h.group)
				h.quiet.Over(work, h.Log, "message", "messages pass again", "group", h.group)
			}
		}
	}
	return h.spill(ctx, work)
}

// settle handles items, which are in no lane or at the head of theirs, with those behind them: those that pass are
// done, those that fail are at the head of their lanes afterwards, with those of their keys behind them.
func (h *session) settle(ctx, work context.Context, items []*item, how how) error {
	err := h.persist(ctx, work, items, how)
	switch {
	case errors.Is(err, errStopped):
		return err
	case err == nil:
	case len(items) == 1:
		items[0].failure, items[0].held = err, false
	case !how.sift && !errors.Is(err, context.DeadlineExceeded):
		h.troubled(work, "batch failed; leaving out what fails", len(items), err)
		how.sift = true
		return h.settle(ctx, work, items, how)
	default: // it failed as a whole: at its end, or because its time was over
		h.troubled(work, "batch failed; splitting it", len(items), err)
		how.sift, how.look = true, true
		half := len(items) / 2
		if err := h.settle(ctx, work, items[:half], how); err != nil {
			return err
		}
		var rest []*item
		for _, it := range items[half:] {
			if !h.lanes.follow(it) {
				rest = append(rest, it)
			}
		}
		if len(rest) == 0 {
			return nil
		}
		return h.settle(ctx, work, rest, how)
	}
	for _, it := range items {
		switch {
		case it.held:
			h.lanes.follow(it)
		case it.failure == nil:
			h.lanes.done(it)
		default:
			h.failed(work, it, it.failure)
		}
	}
	return nil
}

func (h *session) troubled(ctx context.Context, msg string, messages int, err error) {
	h.wary = waryFor
	h.Metrics.retries.WithLabelValues(h.group, "batch").Inc()
	h.quiet.Warn(ctx, h.Log, "batch", msg, "group", h.group, "messages", messages, "error", reason(err))
}

// failed decides what becomes of a message whose handler failed: another try later, or the dead letter topic.
func (h *session) failed(work context.Context, it *item, err error) {
	h.wary = waryFor
	if it.dead != nil {
		h.quiet.Warn(withTrace(work, it.meta), h.Log, "burial", "dead letter not written; trying again", "group", h.group, "topic", it.record.Topic,
			"key", it.meta.Key, "error", reason(err))
		h.lanes.retry(it).due = time.Now().Add(time.Second)
		return
	}
	it.attempts++
	if !permanent(err) && it.attempts < h.Attempts && !it.last {
		h.Metrics.retries.WithLabelValues(h.group, "message").Inc()
		h.quiet.Warn(withTrace(work, it.meta), h.Log, "message", "message failed; trying again", "group", h.group, "topic", it.record.Topic,
			"key", it.meta.Key, "attempt", it.attempts, "error", reason(err))
		h.lanes.retry(it)
		return
	}
	it.dead = err
	lane := h.lanes.retry(it)
	lane.last = true
	if h.Followers == BuryWithHead {
		lane.doom = fmt.Errorf("buried behind %s/%d at %d, which has the same key: %w", it.record.Topic, it.record.Partition, it.record.Offset, err)
	}
}

// persist runs the transaction until it passes or fails for a reason of the messages' own. Faults of the infrastructure
// are tried again for as long as the membership lasts: the partitions wait. Messages whose time is over are none of
// these: fewer may do, and one that the database had time for fails by itself.
func (h *session) persist(ctx, work context.Context, items []*item, how how) error {
	wait := backoff.NewExponentialBackOff() // jittered
	wait.InitialInterval, wait.MaxInterval = 20*time.Millisecond, 2*time.Second
	for {
		attempt, cancel := context.WithTimeout(work, h.Timeout)
		err := h.transact(attempt, items, how)
		over := pg.TimedOut(err)
		if errors.Is(attempt.Err(), context.DeadlineExceeded) && err != nil {
			over, err = true, fmt.Errorf("%w after %s: %w", context.DeadlineExceeded, h.Timeout, err)
		}
		cancel()
		switch {
		case err == nil:
			h.quiet.Over(work, h.Log, "fault", "the infrastructure works again", "group", h.group)
			return nil
		case work.Err() != nil:
			return errStopped
		case !over && (!pg.Transient(err) || errors.Is(err, pgx.ErrTxCommitRollback)):
			return err
		case ctx.Err() != nil:
			return errStopped
		case over && (len(items) > 1 || h.answers(work)):
			return err
		}
		h.Metrics.retries.WithLabelValues(h.group, "fault").Inc()
		h.quiet.Warn(work, h.Log, "fault", "infrastructure fault; trying the batch again", "group", h.group, "messages", len(items), "error", err)
		select {
		case <-ctx.Done():
			return errStopped
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// answers asks the database for a word.
func (h *session) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return pg.InTx(ctx, h.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "SELECT 1")
		return err
	}) == nil
}

// sifter handles items in steps of one transaction and leaves out those that fail, and those of the same keys behind
// them.
type sifter struct {
	*executor
	tx     pgx.Tx
	steps  *pg.Steps
	hooks  *[]func()
	failed map[string]bool // keys
	out    writes
}

// sift sets failure or held of those items that do not pass, and returns what the others emit.
func (e *executor) sift(ctx context.Context, tx pgx.Tx, items []*item, hooks *[]func()) (writes, error) {
	for _, it := range items {
		it.failure, it.held = nil, false
	}
	steps, err := pg.NewSteps(ctx, tx)
	if err != nil {
		return writes{}, err
	}
	s := &sifter{executor: e, tx: tx, steps: steps, hooks: hooks, failed: map[string]bool{}}
	for len(items) > 0 {
		n, size := 1, stepSize
		if e.blamed {
			size = blamedStepSize
		}
		for doubtful := items[0].doubtful(); !doubtful && n < min(len(items), size) && !items[n].doubtful(); {
			n++
		}
		if err := s.part(ctx, items[:n], false); err != nil {
			return writes{}, err
		}
		items = items[n:]
	}
	return s.out, nil
}

// doubtful tells whether the item's handler is likely to fail.
func (it *item) doubtful() bool { return it.dead == nil && (it.attempts > 0 || it.last) }

// part handles items in one step, and in smaller ones if that fails. spoilt says that it would: the first half of what
// had failed as a whole has passed, so this is the other. With one left out since, whose key had failed there, nobody
// knows.
func (s *sifter) part(ctx context.Context, items []*item, spoilt bool) error {
	free := make([]*item, 0, len(items))
	for _, it := range items {
		if it.held = s.failed[laneOf(it)]; !it.held {
			free = append(free, it)
		}
	}
	switch {
	case len(free) == 0:
		return nil
	case spoilt && len(free) == len(items) && len(free) > 1:
		return s.halve(ctx, free)
	}
	err, lost := s.try(ctx, free)
	if err == nil {
		return nil
	}
	i := blamed(free, err)
	s.blamed = i >= 0
	switch {
	case lost != nil:
		return lost
	case pg.Transient(err) && !pg.TimedOut(err):
		return err
	case len(free) == 1:
		s.fail(free[0], err)
		return nil
	case i < 0:
		return s.halve(ctx, free)
	}
	if err := s.part(ctx, free[:i], false); err != nil {
		return err
	}
	if free[i].held = s.failed[laneOf(free[i])]; !free[i].held {
		s.fail(free[i], err)
	}
	return s.part(ctx, free[i+1:], false)
}

// try handles items in one step. Nothing of it remains when it fails.
func (s *sifter) try(ctx context.Context, items []*item) (failed, lost error) {
	var emitted writes
	hooks := len(*s.hooks)
	failed, lost = s.steps.Do(ctx, func() (err error) {
		emitted, err = s.handle(ctx, s.tx, items)
		return err
	})
	if failed != nil {
		*s.hooks = (*s.hooks)[:hooks]
		return failed, lost
	}
	s.out.append(emitted)
	return nil, nil
}

// halve handles items of which one is known to fail, or all together.
func (s *sifter) halve(ctx context.Context, items []*item) error {
	half, failed := len(items)/2, len(s.failed)
	if err := s.part(ctx, items[:half], false); err != nil {
		return err
	}
	return s.part(ctx, items[half:], len(s.failed) == failed)
}

func (s *sifter) fail(it *item, err error) {
	it.failure = err
	s.failed[laneOf(it)] = true
}

// passed returns the items that were handled.
func passed(items []*item) []*item {
	out := make([]*item, 0, len(items))
	for _, it := range items {
		if it.failure == nil && !it.held {
			out = append(out, it)
		}
	}
	return out
}
