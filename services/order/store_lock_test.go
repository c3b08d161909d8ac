package order

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Two members of the consumer group, which hold partitions of different topics, get contradicting news of the same
// orders at the same time, each in an order of its own. They do not deadlock, and each order settles once.
func TestTwoMembersSettleAnOrderOnce(t *testing.T) {
	t.Parallel()
	c := setup(t)
	for range 10 {
		const orders = 20
		var completions []saga.Msg[event.PaymentCompletedV1]
		var failures []saga.Msg[event.PaymentFailedV1]
		for range orders {
			id := c.placed(t, draft("u-1")).ID
			meta := saga.Meta{ID: uuid.Must(uuid.NewV7()), Key: id.String()}
			completions = append(completions, saga.Msg[event.PaymentCompletedV1]{Meta: meta, Data: event.PaymentCompletedV1{OrderID: id}})
			failures = append(failures, saga.Msg[event.PaymentFailedV1]{Meta: meta, Data: event.PaymentFailedV1{OrderID: id, Error: "declined"}})
			completions[len(completions)-1].Topic, failures[len(failures)-1].Topic = event.PaymentCompleted.Name(), event.PaymentFailed.Name()
		}
		rand.Shuffle(orders, func(i, j int) { failures[i], failures[j] = failures[j], failures[i] })

		told := map[string]int{}
		var mu sync.Mutex
		var began, done sync.WaitGroup
		began.Add(2)
		member := func(handle func(context.Context, pgx.Tx) ([]saga.Out, error)) {
			var outs []saga.Out
			err := pg.InTx(t.Context(), c.db, func(tx pgx.Tx) (err error) {
				began.Done()
				began.Wait()
				outs, err = handle(t.Context(), tx)
				return err
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range outs {
				told[o.Key]++
			}
		}
		done.Go(func() {
			member(func(ctx context.Context, tx pgx.Tx) ([]saga.Out, error) {
				return react(c.metrics, nil, paid)(ctx, tx, completions)
			})
		})
		done.Go(func() {
			member(func(ctx context.Context, tx pgx.Tx) ([]saga.Out, error) {
				return react(c.metrics, nil, notPaid)(ctx, tx, failures)
			})
		})
		done.Wait()

		for _, m := range completions {
			if told[m.Key] != 1 {
				t.Fatalf("order %s was told to have settled %d times", m.Key, told[m.Key])
			}
			if o := c.order(t, m.Data.OrderID); len(o.History) != 3 {
				t.Fatalf("order %s has the history %+v, want both events in it", m.Key, o.History)
			}
		}
	}
}

// Rows are locked in the order of their ids, whatever their order in the table and in the request.
func TestLockOrder(t *testing.T) {
	t.Parallel()
	c := setup(t)
	first, second := uuid.Must(uuid.NewV7()), uuid.Must(uuid.NewV7())
	for _, id := range []uuid.UUID{second, first} {
		exec(t, c.db, `INSERT INTO orders (id, user_id, items, amount, currency, status, history, created_at)
			VALUES ($1, 'u-1', '[]', 1, 'EUR', 'PENDING', '[]', now())`, id)
	}
	var waiter sync.WaitGroup
	defer waiter.Wait()
	err := pg.InTx(t.Context(), c.db, func(tx pgx.Tx) error {
		if _, err := lock(t.Context(), tx, []uuid.UUID{first}); err != nil {
			return err
		}
		waiter.Go(func() {
			if err := pg.InTx(t.Context(), c.db, func(tx pgx.Tx) error {
				_, err := lock(t.Context(), tx, []uuid.UUID{second, first})
				return err
			}); err != nil {
				t.Error(err)
			}
		})
		pgtest.AwaitLock(t, c.db)
		_, err := tx.Exec(t.Context(), `SELECT 1 FROM orders WHERE id = $1 FOR UPDATE NOWAIT`, second)
		return err
	})
	if err != nil {
		t.Errorf("who waits for the first order holds the second: %v", err)
	}
}
