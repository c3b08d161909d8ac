// Package sqlfloor does the SQL work of orders straight in PostgreSQL: what is left of the system without HTTP, Kafka,
// services and most of the round-trips. The statements are those of the services, each batch of orders goes through the
// same transactions in the same three databases, and one batch is in every step at a time. No implementation that does
// this work can be faster on the same server, so the bench reports how near the system comes.
package sqlfloor

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// step is one service's transaction, and the queue of events that it leaves behind.
type step struct {
	name  string
	relay *pgx.Conn // reads and deletes the outbox
	db    *pgx.Conn
	topic string
	queue func(b *pgx.Batch, orders []Order)
}

// Run takes batches of orders through all steps until next returns none, and returns how many went through. The pools
// are the services' databases by name, with their schema.
func Run(ctx context.Context, dbs map[string]*pgxpool.Pool, next func() []Order) (int, error) {
	steps := []*step{
		{name: "order", topic: "order.created", queue: place},
		{name: "inventory", topic: "inventory.reserved", queue: reserve},
		{name: "payment", topic: "payment.completed", queue: charge},
		{name: "order", topic: "order.confirmed", queue: confirm},
	}
	for i, s := range steps {
		release, err := s.connect(ctx, dbs[s.name])
		defer release()
		if err != nil {
			return 0, fmt.Errorf("step %d: %w", i+1, err)
		}
	}

	g, ctx := errgroup.WithContext(ctx)
	in := make(chan []Order)
	first := in
	for _, s := range steps {
		from, to := in, make(chan []Order, 1)
		g.Go(func() error {
			defer close(to)
			for orders := range from {
				if err := s.run(ctx, orders); err != nil {
					return fmt.Errorf("%s of %d orders: %w", s.topic, len(orders), err)
				}
				select {
				case to <- orders:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
		in = to
	}
	g.Go(func() error {
		defer close(first)
		for orders := next(); len(orders) > 0; orders = next() {
			select {
			case first <- orders:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	done := 0
	g.Go(func() error {
		for orders := range in {
			done += len(orders)
		}
		return nil
	})
	err := g.Wait()
	return done, err
}

func (s *step) connect(ctx context.Context, pool *pgxpool.Pool) (release func(), err error) {
	var held []*pgxpool.Conn
	release = func() {
		for _, c := range held {
			c.Release()
		}
	}
	for _, conn := range []**pgx.Conn{&s.db, &s.relay} {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return release, err
		}
		held = append(held, c)
		*conn = c.Conn()
	}
	_, err = s.relay.Exec(ctx, `SET synchronous_commit = off`)
	return release, err
}

// run is the transaction, and then the relay's: what a batch of statements does is one.
func (s *step) run(ctx context.Context, orders []Order) error {
	var b pgx.Batch
	s.queue(&b, orders)
	queueOutbox(&b, s.topic, orders)
	if err := s.db.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	ids, err := s.read(ctx, len(orders))
	if err != nil {
		return err
	}
	_, err = s.relay.Exec(ctx, deleteSQL, ids)
	return err
}

const (
	nextSQL   = `SELECT id, topic, key, value, headers, created_at FROM outbox WHERE topic = $1 ORDER BY id LIMIT $2`
	deleteSQL = `DELETE FROM outbox WHERE id = ANY($1)`
)

// read reads the step's events, as the relay would to publish them. Two steps share the order service's outbox.
func (s *step) read(ctx context.Context, n int) ([]int64, error) {
	rows, _ := s.relay.Query(ctx, nextSQL, s.topic, n) // the error surfaces in the collector
	ids := make([]int64, 0, n)
	var id int64
	var topic, headers string
	var key, value []byte
	var at time.Time
	_, err := pgx.ForEachRow(rows, []any{&id, &topic, &key, &value, &headers, &at}, func() error {
		ids = append(ids, id)
		return nil
	})
	return ids, err
}
