package checker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// mailbox finds the dead letters that wait in the cluster, and puts them back.
type mailbox struct {
	client *broker.Client
	kept   *keeping
}

func newMailbox(client *broker.Client) mailbox { return mailbox{client, &keeping{}} }

// keepEvery is how often Kafka is made to remember what was passed; it forgets after a week. Not at each look: to
// commit again what was read a moment ago can set somebody back who passes letters in between.
const keepEvery = time.Hour

// keeping is when that was done last, and for which topics.
type keeping struct {
	mu     sync.Mutex
	at     time.Time
	topics []string
}

func (k *keeping) due(topics []string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.at) >= keepEvery || !slices.Equal(k.topics, topics)
}

func (k *keeping) done(topics []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at, k.topics = time.Now(), topics
}

func (m mailbox) waiting(ctx context.Context) ([]saga.DeadLetter, error) {
	topics, err := saga.DeadLetterTopics(ctx, m.client)
	if err != nil {
		return nil, err
	}
	if m.kept.due(topics) {
		if err := saga.KeepLetters(ctx, m.client, topics...); err != nil {
			return nil, err
		}
		m.kept.done(topics)
	}
	return saga.WaitingLetters(ctx, m.client, topics...)
}

func (m mailbox) letters(ctx context.Context) ([]Letter, error) {
	waiting, err := m.waiting(ctx)
	letters := make([]Letter, len(waiting))
	for i, d := range waiting {
		r := d.Record
		letters[i] = Letter{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: string(r.Key), Reason: d.Reason,
			Redriven: d.Redriven() || d.Group == "", // what somebody else has put there came from nowhere
		}
	}
	return letters, err
}

func (m mailbox) redrive(ctx context.Context, chosen []Letter) error {
	type place struct {
		topic     string
		partition int
		offset    int64
	}
	wanted := map[place]bool{}
	for _, l := range chosen {
		wanted[place{l.Topic, l.Partition, l.Offset}] = true
	}
	waiting, err := m.waiting(ctx)
	if err != nil {
		return err
	}
	var letters []saga.DeadLetter
	for _, d := range waiting { // without those that somebody has passed meanwhile
		if wanted[place{d.Record.Topic, d.Record.Partition, d.Record.Offset}] {
			letters = append(letters, d)
		}
	}
	errs, err := saga.RedriveLetters(ctx, m.client, letters)
	return errors.Join(append(errs, err)...)
}
