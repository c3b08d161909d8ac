package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// poisonKey sends messages of one key, all of which are sound and none of which the witness can handle, at five a
// second. They have to be buried, and nothing else may wait for them.
func poisonKey(ctx context.Context, c *calamity, _ string, _ *rand.Rand) (string, error) {
	var sent []poisoned
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; {
		p := poisoned{id: uuid.NewString(), topic: "order.confirmed", value: fmt.Sprintf(`{"orderId":%q}`, witness.Cursed)}
		r := p.record([]byte(witness.Cursed.String()))
		r.Headers = append(r.Headers, broker.Header{Key: "ce_id", Value: []byte(uuid.Must(uuid.NewV7()).String())})
		if err := errors.Join(c.world.client.Produce(ctx, []broker.Record{r})...); err == nil {
			c.poisons.add(p)
			sent = append(sent, p)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	after, err := c.awaitBuried(ctx, sent)
	return fmt.Sprintf("%d messages, the last one buried %s after the end", len(sent), after), err
}

// oversize sends records that are small on the wire and large when unpacked, larger than any dead letter may be, and a
// message in answer to which the witness emits an event that is too large for its topic.
func oversize(ctx context.Context, c *calamity, _ string, rnd *rand.Rand) (string, error) {
	topics := []string{"order.created", "inventory.reserved", "payment.completed", "payment.failed", "order.confirmed"}
	rnd.Shuffle(len(topics), func(i, j int) { topics[i], topics[j] = topics[j], topics[i] })
	var sent []poisoned
	send := func(p poisoned, value string, key []byte) {
		r := p.record(key)
		r.Value, r.Partition = []byte(value), rnd.IntN(partitions)
		offset, err := c.world.servers.ProduceCompressed(ctx, r)
		if err != nil {
			return // nobody knows
		}
		p.place = place(&broker.Record{Topic: r.Topic, Partition: r.Partition, Offset: offset})
		c.poisons.add(p)
		sent = append(sent, p)
	}
	for _, topic := range topics {
		size := 2<<20 + 1 + rnd.IntN(2<<20)
		p := poisoned{id: uuid.NewString(), topic: topic, value: fmt.Sprintf("%d bytes", size)}
		send(p, `{"orderId":"`+strings.Repeat("x", size), []byte(uuid.NewString()))
		pause(ctx, time.Second)
	}
	// Each of its items is wrong, so its errors are far larger than it is.
	id := uuid.NewString()
	send(poisoned{id: uuid.NewString(), topic: "order.created", value: "100000 wrong items"},
		fmt.Sprintf(`{"orderId":%q,"items":[{}%s]}`, id, strings.Repeat(",{}", 100_000)), []byte(id))
	send(poisoned{id: uuid.NewString(), topic: "order.confirmed", value: "what swells"},
		fmt.Sprintf(`{"orderId":%q}`, witness.Swollen), []byte(witness.Swollen.String()))
	after, err := c.awaitBuried(ctx, sent)
	return fmt.Sprintf("%d messages, the last one buried %s after it", len(sent), after), err
}

const (
	// buriedWithin is how long dead letters may take when no more poison comes, and their topics can be read.
	buriedWithin = 30 * time.Second
	// readableWithin is how long these may have no leader, for other faults.
	readableWithin = 3 * time.Minute
)

// awaitBuried waits until poison is in the dead letter topics of all groups that meet it, and returns how long that
// took.
func (c *calamity) awaitBuried(ctx context.Context, sent []poisoned) (time.Duration, error) {
	began := time.Now()
	readable := began // since when
	for {
		left, err := c.unburied(ctx, sent)
		took := time.Since(began).Truncate(100 * time.Millisecond)
		switch {
		case err == nil && left == 0 || ctx.Err() != nil:
			return took, ctx.Err()
		case err != nil && took < readableWithin:
			readable = time.Now()
		case time.Since(readable) > buriedWithin:
			return took, errors.Join(err, fmt.Errorf("%d of %d messages were not buried %s after the last was sent", left, len(sent), took))
		}
		pause(ctx, time.Second)
	}
}

func (c *calamity) unburied(ctx context.Context, sent []poisoned) (left int, err error) {
	dead := &facts{}
	for _, group := range deadGroups() {
		if !slices.ContainsFunc(sent, func(p poisoned) bool { return slices.Contains(groupsOf()[p.topic], group) }) {
			continue
		}
		if err := c.world.client.Scan(ctx, saga.DeadLetterTopic(group), dead.takeDead); err != nil {
			return len(sent), err
		}
	}
	buried := dead.buried(sent)
	for _, p := range sent {
		if slices.ContainsFunc(groupsOf()[p.topic], func(group string) bool { return !buried[group+" "+p.id] }) {
			left++
		}
	}
	return left, nil
}
