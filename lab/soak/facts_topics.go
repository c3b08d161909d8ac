package soak

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// eventTopics are those whose records tell of one order each.
func eventTopics() []string {
	return []string{
		"order.created", "inventory.reserved", "inventory.reservation.failed", "inventory.released",
		"payment.completed", "payment.failed", "payment.refunded", "payment.refund.failed",
		"order.confirmed", "order.cancel.requested", "order.cancelled",
	}
}

// noFacts are facts without any events.
func noFacts() *facts {
	f := &facts{topics: map[string]map[uuid.UUID][]record{}, counts: map[string][]int64{}}
	for _, topic := range eventTopics() {
		f.topics[topic] = map[uuid.UUID][]record{}
	}
	return f
}

// readTopics reads every record there is, after those that were in topics when they were deleted.
func (f *facts) readTopics(ctx context.Context, client *broker.Client, archived *facts) error {
	f.topics, f.counts, f.strays, f.dead = map[string]map[uuid.UUID][]record{}, map[string][]int64{}, slices.Clone(archived.strays), nil
	for _, topic := range eventTopics() {
		f.topics[topic] = map[uuid.UUID][]record{}
		for id, records := range archived.topics[topic] {
			f.topics[topic][id] = slices.Clip(records)
		}
		err := client.Scan(ctx, topic, func(r broker.Record) error {
			f.take(&r)
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := client.Scan(ctx, witness.Counted.Name(), func(r broker.Record) error {
		p, err := parsePayload(r.Value)
		if err != nil {
			f.stray(&r, err.Error())
		}
		f.counts[string(r.Key)] = append(f.counts[string(r.Key)], p.N)
		return nil
	})
	if err != nil {
		return err
	}
	for _, group := range deadGroups() {
		if err := client.Scan(ctx, saga.DeadLetterTopic(group), f.takeDead); err != nil {
			return err
		}
	}
	return nil
}

func (f *facts) takeDead(r broker.Record) error {
	d, err := saga.ParseDeadLetter(r)
	if err != nil {
		f.stray(&r, err.Error())
	}
	f.dead = append(f.dead, deadLetter{
		place: place(&r), group: d.Group, topic: d.Topic, reason: d.Reason, poison: r.Header(poisonHeader),
		from: place(&broker.Record{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset}),
	})
	return nil
}

func deadGroups() []string {
	groups := map[string]bool{}
	for _, of := range groupsOf() {
		for _, g := range of {
			groups[g] = true
		}
	}
	var names []string
	for g := range groups {
		names = append(names, g)
	}
	slices.Sort(names)
	return names
}

func (f *facts) take(r *broker.Record) {
	if r.Header(poisonHeader) != "" {
		return
	}
	order, err := uuid.ParseBytes(r.Key)
	if err != nil {
		f.stray(r, fmt.Sprintf("its key %q is no order's id", r.Key))
		return
	}
	p, err := parsePayload(r.Value)
	if err != nil || p.OrderID != order {
		f.stray(r, fmt.Sprintf("its value %q does not tell of order %s", r.Value, order))
		return
	}
	id, err := uuid.Parse(r.Header("ce_id"))
	if err != nil {
		f.stray(r, "it has no ce_id")
		return
	}
	cause, _ := uuid.Parse(r.Header("ce_causationid")) // the first event has none
	byOrder := f.topics[r.Topic]
	byOrder[order] = append(byOrder[order], record{
		id: id, cause: cause, partition: r.Partition, offset: r.Offset, at: r.Time, amount: p.Amount, payment: p.PaymentID,
	})
}

func (f *facts) stray(r *broker.Record, reason string) {
	f.strays = append(f.strays, stray{place(r), reason})
}

func place(r *broker.Record) string {
	return fmt.Sprintf("%s/%d at %d", r.Topic, r.Partition, r.Offset)
}
