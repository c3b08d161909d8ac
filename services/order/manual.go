package order

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/idempotency"
)

// Manual is what users and the deadline do to orders, one call after the other and without HTTP: for a simulation,
// which decides when. The events wait in the outbox. One goroutine uses it at a time.
type Manual struct {
	placer   placer
	commands commands
	now      time.Time
}

// NewManual makes one on the service's database, which is migrated.
func NewManual(db *pgxpool.Pool) *Manual {
	metrics := newMetrics()
	m := &Manual{placer: placer{db: db, keys: idempotency.Keys{Retention: time.Hour}, metrics: metrics}}
	m.commands = commands{db: db, metrics: metrics, now: func() time.Time { return m.now }}
	return m
}

// Place places an order, as a POST /orders does that was found to be valid. It fails on a product that comes twice.
func (m *Manual) Place(ctx context.Context, d Draft) (uuid.UUID, error) {
	p := newPosting(ctx, d, "", clock.Now())
	if p.order == nil {
		return uuid.Nil, fmt.Errorf("refused: %s", p.answer.Body)
	}
	results, err := m.placer.place(ctx, []posting{p})
	if err != nil {
		return uuid.Nil, err
	}
	return p.order.ID, results[0].Err
}

// Cancel cancels an order for its user, if it can be cancelled.
func (m *Manual) Cancel(ctx context.Context, id uuid.UUID, user string) error {
	m.now = clock.Now()
	_, err := m.commands.request(ctx, id, user, "cancelled by its user")
	return err
}

// Expire cancels the orders that are PENDING and older than the deadline at that time.
func (m *Manual) Expire(ctx context.Context, now time.Time, deadline time.Duration) error {
	m.now = now
	_, err := newSweeper(&m.commands, deadline, nil).sweep(ctx)
	return err
}
