package payment

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Manual is what the service does besides reacting to messages, when it is told to: for a simulation, which decides
// when. The events wait in the outbox. One goroutine uses it at a time.
type Manual struct {
	retrier retrier
	folder  balanceFolder
	now     time.Time
}

// NewManual makes one on the service's database, which is migrated.
func NewManual(cfg Config, db *pgxpool.Pool) *Manual {
	m := &Manual{}
	cfg.now = func() time.Time { return m.now }
	log := slog.New(slog.DiscardHandler)
	m.retrier = retrier{cashier: newCashier(cfg), db: db, log: log}
	m.folder = balanceFolder{db: db, log: log}
	return m
}

// Retry pays back what is due at that time.
func (m *Manual) Retry(ctx context.Context, now time.Time) error {
	m.now = now
	for {
		if more, err := m.retrier.next(ctx); err != nil || !more {
			return err
		}
	}
}

// Fold adds what is pending to balances.
func (m *Manual) Fold(ctx context.Context, _ time.Time) error { return m.folder.fold(ctx) }

// Freeze has an owner's accounts refuse debits, or thaws them.
func (m *Manual) Freeze(ctx context.Context, owner string, frozen bool) error {
	_, err := freezeAccounts(ctx, m.folder.db, owner, "", frozen)
	return err
}
