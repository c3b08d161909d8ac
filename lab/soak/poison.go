package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/lab/soak/witness"
	"github.com/converge-dev/converge/pkg/broker"
)

// poisonHeader marks what was produced to do harm. It comes back in the dead letter.
const poisonHeader = "soak-poison"

// groupsOf lists the consumer groups of each topic that services react to: each has to bury the poison in it.
func groupsOf() map[string][]string {
	return map[string][]string{
		"order.created": {"inventory"}, "inventory.reserved": {"payment"},
		"payment.completed": {"order"}, "payment.failed": {"order", "inventory.release"},
		"payment.refunded": {"order", "inventory.release"}, "payment.refund.failed": {"order", "inventory.release"},
		"inventory.reservation.failed": {"order"}, "inventory.released": {"order"},
		"order.cancel.requested": {"payment.refund"},
		"order.cancelled":        {"inventory.release"}, "order.confirmed": {witness.Name},
	}
}

// poisoned is one message of poison.
type poisoned struct {
	id    string
	topic string
	value string
	place string // empty: its header tells which it is
	at    time.Time
	free  bool // it may be buried, and need not be: nobody knows whether a group has seen it
}

// record is the message.
func (p poisoned) record(key []byte) broker.Record {
	return broker.Record{Topic: p.topic, Key: key, Value: []byte(p.value), Headers: []broker.Header{{Key: poisonHeader, Value: []byte(p.id)}}}
}

// poisons remembers what was produced, and what the broker has acknowledged of it.
type poisons struct {
	mu   sync.Mutex
	sent []poisoned
}

func (p *poisons) all() []poisoned {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.sent)
}

// add notes a message that the broker has acknowledged.
func (p *poisons) add(one poisoned) {
	one.at = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = append(p.sent, one)
}

// forgive asks no more for what a group may not have seen of a topic that was deleted, and returns how much that is:
// what came in the last minute. Poison is in no outbox, so nobody sends it again.
func (p *poisons) forgive(topic string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.sent {
		if one := &p.sent[i]; one.topic == topic && !one.free && time.Since(one.at) < time.Minute {
			one.free = true
			n++
		}
	}
	return n
}

// garbage is what no handler can read, in any topic.
func garbage() []string {
	return []string{
		``, `null`, `{`, `[]`, `42`, `"text"`, "\xff\xfe\x00", `{"oops":1}`, `{"orderId":"not an id"}`,
		`{"orderId":"00000000-0000-0000-0000-000000000000","amount":-1}`, `{"orderId":17,"userId":[]}`,
	}
}

// poison produces one message of it for every hundredth order.
func poison(ctx context.Context, c *calamity, _ string, rnd *rand.Rand) (string, error) {
	topics := make([]string, 0, len(groupsOf()))
	for topic := range groupsOf() {
		topics = append(topics, topic)
	}
	slices.Sort(topics)
	// Of an order that nobody placed, only the order service can tell that it is unknown.
	strangers := []string{"payment.completed", "inventory.reservation.failed", "inventory.released"}
	sent := 0
	for end := time.Now().Add(between(rnd, 3*time.Second, 6*time.Second)); time.Now().Before(end) && ctx.Err() == nil; {
		p := poisoned{id: uuid.NewString(), topic: topics[rnd.IntN(len(topics))], value: garbage()[rnd.IntN(len(garbage()))]}
		key := []byte(uuid.NewString())
		switch rnd.IntN(4) {
		case 0:
			p.topic = strangers[rnd.IntN(len(strangers))]
			p.value = fmt.Sprintf(`{"orderId":%q,"paymentId":%q,"amount":5,"error":"a stranger's"}`, key, uuid.NewString())
		case 1:
			key = nil
		}
		if err := errors.Join(c.world.client.Produce(ctx, []broker.Record{p.record(key)})...); err == nil { // otherwise nobody knows
			sent++
			c.poisons.add(p)
		}
		pause(ctx, time.Duration(100/max(c.world.opts.Rate, 1)*float64(time.Second)))
	}
	return fmt.Sprintf("%d messages", sent), nil
}
