package pg

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Result is one item's part of a batch: its value, or its own error.
type Result[Out any] struct {
	Value Out
	Err   error
}

// Batcher is group commit for callers that each have one small piece of work: while one batch is in its transaction,
// the next callers gather, and go together when it is done. An idle caller goes at once and alone, so nothing waits for
// company. (The database does the same below: PostgreSQL manual, 28.4, commit_delay.) Safe for concurrent use.
type Batcher[In, Out any] struct {
	limit   int
	timeout time.Duration
	run     func(ctx context.Context, items []In) ([]Result[Out], error)

	mu      sync.Mutex
	working bool
	waiting []call[In, Out]
	done    sync.WaitGroup
}

type call[In, Out any] struct {
	ctx    context.Context
	in     In
	result chan Result[Out] // buffered, written once
}

// NewBatcher returns a Batcher that hands run up to limit items at a time. run does them in one transaction and returns
// a Result for each, in order. When it fails as a whole with an error that is not [Transient], each item runs again
// alone, so that one bad item costs only itself. The context given to run outlives its callers' and ends after timeout.
func NewBatcher[In, Out any](limit int, timeout time.Duration, run func(ctx context.Context, items []In) ([]Result[Out], error)) *Batcher[In, Out] {
	return &Batcher[In, Out]{limit: limit, timeout: timeout, run: run}
}

// Do runs one item in the next batch. It returns ctx's error when ctx ends first; an item that was in a batch by then
// may be done all the same, so a caller needs an idempotency key to try again safely.
func (b *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	c := call[In, Out]{ctx: ctx, in: in, result: make(chan Result[Out], 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, c)
	if !b.working {
		b.working = true
		b.done.Go(b.work)
	}
	b.mu.Unlock()

	select {
	case r := <-c.result:
		return r.Value, r.Err
	case <-ctx.Done():
		var zero Out
		return zero, ctx.Err()
	}
}

// Waiting is how many callers are queued for the next batch: a measure of load.
func (b *Batcher[In, Out]) Waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting)
}

// Wait returns when no batch is running. Call it after the last Do, before the pool is closed.
func (b *Batcher[In, Out]) Wait() { b.done.Wait() }

// work runs batches until nobody waits.
func (b *Batcher[In, Out]) work() {
	for {
		b.mu.Lock()
		var batch []call[In, Out]
		for len(b.waiting) > 0 && len(batch) < b.limit {
			if b.waiting[0].ctx.Err() == nil { // a caller that has left is not worth a row
				batch = append(batch, b.waiting[0])
			}
			b.waiting = b.waiting[1:]
		}
		if len(batch) == 0 {
			b.working, b.waiting = false, nil
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()

		if err := b.runBatch(batch); err != nil {
			if len(batch) == 1 || Transient(err) {
				fail(batch, err)
				continue
			}
			for i := range batch {
				if err := b.runBatch(batch[i : i+1]); err != nil {
					fail(batch[i:i+1], err)
				}
			}
		}
	}
}

func (b *Batcher[In, Out]) runBatch(batch []call[In, Out]) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), b.timeout)
	defer cancel()
	items := make([]In, len(batch))
	for i, c := range batch {
		items[i] = c.in
	}
	results, err := b.run(ctx, items)
	if err != nil {
		return err
	}
	if len(results) != len(items) {
		return fmt.Errorf("batch of %d items gave %d results", len(items), len(results))
	}
	for i, c := range batch {
		c.result <- results[i]
	}
	return nil
}

func fail[In, Out any](batch []call[In, Out], err error) {
	for _, c := range batch {
		c.result <- Result[Out]{Err: err}
	}
}
