package app

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/inbox"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/saga"
)

const pruneEvery = time.Minute

// pruner keeps the inbox small. What it deletes is below a floor that it has noted before, so that it is recognised
// even if Kafka forgets how far the group was: while Kafka cannot be asked, nothing is deleted.
type pruner struct {
	pool      *pgxpool.Pool
	client    *broker.Client
	svc       saga.Service
	retention time.Duration
	log       *slog.Logger
}

func (p pruner) run(ctx context.Context) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	var faults quiet.Log
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n, err := p.prune(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			faults.Warn(ctx, p.log, "prune", "inbox not pruned; trying again in a minute", "deleted", n, "error", err)
		default:
			faults.Over(ctx, p.log, "prune", "the inbox is pruned again")
		}
	}
}

// prune notes how far each consumer group is, those whose routes are gone included, and deletes what is too old.
func (p pruner) prune(ctx context.Context) (int, error) {
	groups, err := p.svc.Groups()
	if err != nil {
		return 0, err
	}
	consumers, err := inbox.Consumers(ctx, p.pool)
	if err != nil {
		return 0, err
	}
	for _, group := range slices.Compact(slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(groups)), consumers...)))) {
		if err := p.note(ctx, group); err != nil {
			return 0, fmt.Errorf("note how far %s is: %w", group, err)
		}
	}
	return inbox.Prune(ctx, p.pool, p.retention, 5000)
}

// note keeps the offsets that Kafka has of the group: all below them was handled, as an offset is committed only after
// the transaction.
func (p pruner) note(ctx context.Context, group string) error {
	committed, err := p.client.Committed(ctx, group)
	if err != nil {
		return err
	}
	floors := make([]inbox.Floor, 0, len(committed))
	for tp, next := range committed {
		floors = append(floors, inbox.Floor{Topic: tp.Topic, Partition: tp.Partition, Next: next})
	}
	return inbox.Note(ctx, p.pool, group, floors)
}
