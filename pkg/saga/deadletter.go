package saga

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/outbox"
)

// Headers of a dead letter, beside the original's own.
const (
	headerDeadPrefix    = "dlq-"
	headerDeadID        = headerDeadPrefix + "id"
	headerDeadReason    = headerDeadPrefix + "reason"
	headerDeadGroup     = headerDeadPrefix + "handler"
	headerDeadTopic     = headerDeadPrefix + "topic"
	headerDeadPartition = headerDeadPrefix + "partition"
	headerDeadOffset    = headerDeadPrefix + "offset"
	headerDeadAttempts  = headerDeadPrefix + "attempts"
	headerDeadTime      = headerDeadPrefix + "time"
)

// deadLetterBytes bounds key, value and headers of a dead letter, whose topic takes 2 MiB and 64 KiB: see [Topics].
const deadLetterBytes = 2 << 20

// DeadLetterTopic is where a consumer group's dead letters go.
func DeadLetterTopic(group string) string { return group + ".dlq" }

// deadLetter wraps the original's bytes, key and headers with what happened to it.
func deadLetter(group string, it *item) outbox.Message {
	r := &it.record
	headers := slices.DeleteFunc(slices.Clone(r.Headers), func(h broker.Header) bool { return strings.HasPrefix(h.Key, headerDeadPrefix) })
	for _, h := range [][2]string{
		{headerDeadID, it.meta.ID.String()},
		{headerDeadReason, it.dead.Error()},
		{headerDeadGroup, group},
		{headerDeadTopic, r.Topic},
		{headerDeadPartition, strconv.Itoa(r.Partition)},
		{headerDeadOffset, strconv.FormatInt(r.Offset, 10)},
		{headerDeadAttempts, strconv.Itoa(it.tried())},
		{headerDeadTime, clock.Now().UTC().Format(time.RFC3339Nano)},
	} {
		headers = append(headers, broker.Header{Key: h[0], Value: []byte(h[1])})
	}
	return outbox.Message{Topic: DeadLetterTopic(group), Key: r.Key, Value: r.Value, Headers: headers, Limit: deadLetterBytes}
}

// DeadLetter is what a record of a dead letter topic says.
type DeadLetter struct {
	Reason    string
	Group     string // the consumer group that could not handle it
	Topic     string // where it came from
	Partition int
	Offset    int64
	Attempts  int
	Time      time.Time
	Record    broker.Record // as it lies in the dead letter topic
}

// ParseDeadLetter reads a record of a dead letter topic. It fails on a record that is not one.
func ParseDeadLetter(r broker.Record) (DeadLetter, error) {
	d := DeadLetter{Reason: r.Header(headerDeadReason), Group: r.Header(headerDeadGroup), Topic: r.Header(headerDeadTopic), Record: r}
	if d.Group == "" || d.Topic == "" {
		return d, fmt.Errorf("%s/%d at %d is no dead letter: the headers %s and %s are missing", r.Topic, r.Partition, r.Offset, headerDeadGroup, headerDeadTopic)
	}
	// What follows is information for people: unreadable parts stay zero.
	d.Partition, _ = strconv.Atoi(r.Header(headerDeadPartition))
	d.Offset, _ = strconv.ParseInt(r.Header(headerDeadOffset), 10, 64)
	d.Attempts, _ = strconv.Atoi(r.Header(headerDeadAttempts))
	d.Time, _ = time.Parse(time.RFC3339Nano, r.Header(headerDeadTime))
	return d, nil
}

// Redrive makes the record that puts the message back where it came from. Its group will handle it once more, exactly
// once however often the same dead letter is redriven; other groups of the topic know the message already.
func (d DeadLetter) Redrive() broker.Record {
	r := d.Record
	headers := slices.DeleteFunc(slices.Clone(r.Headers), func(h broker.Header) bool {
		return strings.HasPrefix(h.Key, headerDeadPrefix) || h.Key == headerRedrive
	})
	if r.Header(headerID) == "" { // it was identified by its place in the log, which the new record has not
		headers = append(headers, broker.Header{Key: headerID, Value: []byte(r.Header(headerDeadID))})
	}
	mark := fmt.Sprintf("%s@%s/%d/%d", d.Group, r.Topic, r.Partition, r.Offset)
	return broker.Record{
		Topic: d.Topic, Key: r.Key, Value: r.Value, Time: r.Time,
		Headers: append(headers, broker.Header{Key: headerRedrive, Value: []byte(mark)}),
	}
}
