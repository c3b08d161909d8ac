// Package sagatest runs a service's reactions against its real database and without Kafka, so that a test is: deliver
// these messages, compare what comes out ([Deliver]); or: whatever happens to messages and members on the way, this
// holds in the end ([Converges]).
package sagatest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/timer"
)

// Migrate gives a database the tables that every service has, and then the service's own.
func Migrate(own ...pg.Migration) func(ctx context.Context, pool *pgxpool.Pool) error {
	return func(ctx context.Context, pool *pgxpool.Pool) error {
		return pg.Migrate(ctx, pool, append([]pg.Migration{outbox.Migration(), inbox.Migration(), timer.Migration()}, own...)...)
	}
}

// Deliver hands the records to the service as one poll and returns the events that they left in the outbox, in
// order, dead letters included. It empties the outbox. A message that fails is tried again a few times, fast.
func Deliver(t testing.TB, pool *pgxpool.Pool, svc saga.Service, records ...broker.Record) []broker.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := saga.Deliver(ctx, svc, saga.Config{DB: pool, Attempts: 3, Backoff: time.Millisecond}, records...); err != nil {
		t.Fatalf("deliver to %s: %v", svc.Name, err)
	}
	return Drain(t, pool)
}

const bringForwardSQL = `UPDATE timers SET due_at = due_at - $1::interval`

// Elapse lets time pass for the timers of the database: it fires those that are due within d from now, in the order of
// their times, and returns the events that the outbox holds then. It empties the outbox. [Deliver] hands them on.
func Elapse(t testing.TB, pool *pgxpool.Pool, d time.Duration) []broker.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := pool.Exec(ctx, bringForwardSQL, d); err != nil {
		t.Fatalf("bring the timers forward: %v", err)
	}
	if _, err := timer.NewRunner(pool, nil, timer.Config{}).Fire(ctx); err != nil {
		t.Fatal(err)
	}
	return Drain(t, pool)
}

// Drain returns the events that lie in the outbox and empties it.
func Drain(t testing.TB, pool *pgxpool.Pool) []broker.Record {
	t.Helper()
	ctx := context.Background()
	out, err := outbox.Waiting(ctx, pool, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(ctx, `DELETE FROM outbox`); err != nil {
		t.Fatalf("empty the outbox: %v", err)
	}
	return out
}

// Record makes the record in which an event reaches a consumer.
func Record(t testing.TB, out saga.Out) broker.Record {
	t.Helper()
	r, err := saga.Encode("sagatest", out)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Decode returns the data of a record of the topic.
func Decode[T any](t testing.TB, topic saga.Topic[T], r broker.Record) T {
	t.Helper()
	m, err := saga.Decode(topic, r)
	if err != nil {
		t.Fatal(err)
	}
	return m.Data
}
