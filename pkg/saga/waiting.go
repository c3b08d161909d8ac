package saga

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/broker"
)

// OperatorGroup is the consumer group that stands for the operator: a dead letter waits until this group has passed it.
// So Kafka's own tools show how many wait (kafka-consumer-groups.sh --describe --group converge-operator), and can pass
// them.
const OperatorGroup = "converge-operator"

// DeadLetterTopics lists the dead letter topics that the cluster has, by name, of whatever services.
func DeadLetterTopics(ctx context.Context, client *broker.Client) ([]string, error) {
	topics, err := client.Topics(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(topics, func(name string) bool { return !strings.HasSuffix(name, DeadLetterTopic("")) }), nil
}

// WaitingLetters lists the dead letters of these topics that nobody has dealt with yet. A record that somebody else has
// put there waits, too; it has no Group.
func WaitingLetters(ctx context.Context, client *broker.Client, topics ...string) (waiting []DeadLetter, err error) {
	for _, topic := range topics {
		err := client.ScanFrom(ctx, OperatorGroup, topic, func(r broker.Record) error {
			d, foreign := ParseDeadLetter(r)
			if foreign != nil {
				d.Reason = "not a dead letter: somebody else put it here"
			}
			waiting = append(waiting, d)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look for dead letters: %w", err)
		}
	}
	return waiting, nil
}

// KeepLetters has Kafka remember what was passed: it forgets what a group without members has committed after a week,
// while dead letters are kept. It is called whenever somebody looks. Topics that are not there are left out.
func KeepLetters(ctx context.Context, client *broker.Client, topics ...string) error {
	return client.Recommit(ctx, OperatorGroup, topics...)
}

// Redriven tells whether the message was put back for its group before, and became a dead letter again.
func (d DeadLetter) Redriven() bool {
	return strings.HasPrefix(d.Record.Header(headerRedrive), d.Group+"@")
}

type letterOffset struct {
	broker.TopicPartition
	offset int64
}

func (d DeadLetter) at() letterOffset {
	return letterOffset{broker.TopicPartition{Topic: d.Record.Topic, Partition: d.Record.Partition}, d.Record.Offset}
}

// PassLetters says that these letters are dealt with. In each partition it passes what comes before the first that
// still waits: one that is dealt with out of turn is passed together with those before it. Doing it again changes
// nothing.
func PassLetters(ctx context.Context, client *broker.Client, letters []DeadLetter) error {
	done := map[letterOffset]bool{}
	var topics []string
	seen := map[string]bool{}
	for _, d := range letters {
		done[d.at()] = true
		if !seen[d.Record.Topic] {
			seen[d.Record.Topic] = true
			topics = append(topics, d.Record.Topic)
		}
	}
	waiting, err := WaitingLetters(ctx, client, topics...)
	if err != nil {
		return err
	}
	next, stuck := map[broker.TopicPartition]int64{}, map[broker.TopicPartition]bool{}
	for _, d := range waiting { // by offset within each partition
		at := d.at()
		if stuck[at.TopicPartition] = stuck[at.TopicPartition] || !done[at]; !stuck[at.TopicPartition] {
			next[at.TopicPartition] = at.offset + 1
		}
	}
	if len(next) == 0 {
		return nil
	}
	return client.CommitFor(ctx, OperatorGroup, next)
}

// RedriveLetters puts letters back where they came from, and passes those for which that succeeded. It returns an
// error, or nil, for each, and that of passing them. Of a truncated letter it reads the message where it still lies in
// its topic; that fails if it is gone from there.
func RedriveLetters(ctx context.Context, client *broker.Client, letters []DeadLetter) ([]error, error) {
	errs := make([]error, len(letters))
	var records []broker.Record
	var of []int // the letter of each record
	for i, d := range letters {
		r, err := d.whole(ctx, client)
		if errs[i] = err; err == nil {
			records, of = append(records, r), append(of, i)
		}
	}
	var back []DeadLetter
	for n, err := range client.Produce(ctx, records) {
		if errs[of[n]] = err; err == nil {
			back = append(back, letters[of[n]])
		}
	}
	return errs, PassLetters(ctx, client, back)
}

// whole is the record that puts the message back.
func (d DeadLetter) whole(ctx context.Context, client *broker.Client) (broker.Record, error) {
	if !d.Truncated {
		return d.Redrive(), nil
	}
	r, err := client.ReadAt(ctx, d.Topic, d.Partition, d.Offset)
	if err != nil {
		return r, fmt.Errorf("the message is too large to be in its dead letter: %w", err)
	}
	if sum(r.Value) != d.Record.Header(headerDeadSHA256) {
		return r, fmt.Errorf("the message is too large to be in its dead letter, and another one is at %s/%d/%d now", d.Topic, d.Partition, d.Offset)
	}
	r.Time = d.Record.Time
	return d.back(r, r.Headers), nil
}
