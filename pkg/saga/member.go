package saga

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
)

// Member is a member of one consumer group that gets its messages from its caller, and not from Kafka: for tests,
// simulations and tools that replay. All else is what [Run] does: the transaction, the inbox, retries, dead letters and
// the outbox.
//
// It remembers what a member remembers between two polls. To crash one, end the context of [Member.Handle] and make
// another. Use it from one goroutine at a time.
type Member struct{ h *session }

// Members makes one member of each of the service's groups, in the order of their names. Config.Broker is not used. It
// fails where the service's declarations are wrong, or there is no database.
func Members(svc Service, cfg Config) ([]*Member, error) {
	cfg.defaults()
	groups, err := svc.groups()
	if err != nil {
		return nil, err
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("members of %s: %w", svc.Name, err)
	}
	members := make([]*Member, 0, len(groups))
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		members = append(members, &Member{newConsumer(svc.Name, name, groups[name], cfg).newSession()})
	}
	return members, nil
}

// Group is the name of the member's group.
func (m *Member) Group() string { return m.h.group }

// Topics are what the group consumes.
func (m *Member) Topics() []string {
	topics := make([]string, len(m.h.routes))
	for i, r := range m.h.routes {
		topics[i] = r.topic
	}
	return topics
}

// Assign gives the member partitions, as a rebalance does: it looks for messages of theirs that wait in the database.
// Those of the records that it is handed it gets by itself, one look for each poll that has new ones.
func (m *Member) Assign(ctx context.Context, partitions ...broker.TopicPartition) error {
	return m.h.adopt(ctx, ctx, partitions)
}

// Handle handles records as one poll, and returns when each was handled, was known already, or is a dead letter:
// retries included. Records of topics that the group has no route for are not its. When ctx ends first, it fails; what
// was not committed by then never happened.
func (m *Member) Handle(ctx context.Context, records ...broker.Record) error {
	mine := slices.DeleteFunc(slices.Clone(records), func(r broker.Record) bool { return m.h.route(r.Topic) < 0 })
	if err := m.h.handle(ctx, ctx, mine); err != nil {
		return err
	}
	for m.h.lanes.size() > 0 {
		at, _ := m.h.lanes.next()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(at)):
		}
		if err := m.h.retryDue(ctx, ctx); err != nil {
			return err
		}
	}
	return nil
}

// Deliver hands records to all of the service's groups, one after the other, as one poll each. See [Member.Handle].
func Deliver(ctx context.Context, svc Service, cfg Config, records ...broker.Record) error {
	members, err := Members(svc, cfg)
	if err != nil {
		return err
	}
	for _, m := range members {
		if err := m.Handle(ctx, records...); err != nil {
			return err
		}
	}
	return nil
}
