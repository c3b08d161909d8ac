package saga

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/outbox"
)

// Headers of a dead letter. They come first, from dlq-id to dlq-time, and the original's own follow untouched, whatever
// their names are.
const (
	headerDeadPrefix    = "dlq-"
	headerDeadID        = headerDeadPrefix + "id"
	headerDeadReason    = headerDeadPrefix + "reason"
	headerDeadGroup     = headerDeadPrefix + "handler"
	headerDeadTopic     = headerDeadPrefix + "topic"
	headerDeadPartition = headerDeadPrefix + "partition"
	headerDeadOffset    = headerDeadPrefix + "offset"
	headerDeadAttempts  = headerDeadPrefix + "attempts"
	headerDeadTruncated = headerDeadPrefix + "truncated" // "true": the value is only the original's first bytes
	headerDeadSize      = headerDeadPrefix + "size"      // of the original's value, if it is truncated
	headerDeadSHA256    = headerDeadPrefix + "sha256"    // of the original's value, if it is truncated
	headerDeadTime      = headerDeadPrefix + "time"
)

const (
	// maxDeadLetter bounds key, value and headers of a dead letter: what its topic takes (see Topics) less the record's
	// frame.
	maxDeadLetter = 2 << 20
	// headerFrame is what Kafka needs for each header beside its name and value, at most.
	headerFrame = 10
	// firstBytes is how much of a value, or of a key, a dead letter has that is a reference.
	firstBytes = 1 << 10
)

// DeadLetterTopic is where a consumer group's dead letters go.
func DeadLetterTopic(group string) string { return group + ".dlq" }

// deadLetter wraps the original's bytes, key and headers with what happened to it. It can always be written: an
// original that is too large for a dead letter topic is not in it, but referred to by its place, size and hash.
func deadLetter(group string, it *item) outbox.Message {
	r := &it.record
	m := outbox.Message{
		Topic: DeadLetterTopic(group), Key: r.Key, Value: r.Value, Headers: slices.Concat(deadHeaders(group, it, false), r.Headers), Limit: maxDeadLetter,
	}
	if m.Size()+headerFrame*len(m.Headers) <= maxDeadLetter {
		return m
	}
	m.Key, m.Value, m.Headers = first(r.Key), first(r.Value), deadHeaders(group, it, true)
	if redriveHeaders(r.Headers) > 0 { // so that it shows that it has been redriven
		m.Headers = append(m.Headers, r.Headers[0])
	}
	return m
}

func first(b []byte) []byte { return b[:min(len(b), firstBytes)] }

func deadHeaders(group string, it *item, truncated bool) []broker.Header {
	r := &it.record
	pairs := [][2]string{
		{headerDeadID, it.meta.ID.String()},
		{headerDeadReason, reason(it.dead)},
		{headerDeadGroup, group},
		{headerDeadTopic, r.Topic},
		{headerDeadPartition, strconv.Itoa(r.Partition)},
		{headerDeadOffset, strconv.FormatInt(r.Offset, 10)},
		{headerDeadAttempts, strconv.Itoa(it.tried())},
	}
	if truncated {
		pairs = append(pairs, [][2]string{{headerDeadTruncated, "true"}, {headerDeadSize, strconv.Itoa(len(r.Value))}, {headerDeadSHA256, sum(r.Value)}}...)
	}
	pairs = append(pairs, [2]string{headerDeadTime, clock.Now().UTC().Format(time.RFC3339Nano)})
	headers := make([]broker.Header, len(pairs))
	for i, h := range pairs {
		headers[i] = broker.Header{Key: h[0], Value: []byte(h[1])}
	}
	return headers
}

func sum(value []byte) string {
	h := sha256.Sum256(value)
	return hex.EncodeToString(h[:])
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
	Truncated bool          // Record has only the message's first bytes: it was too large
	Size      int           // of the message's value, in bytes
	Record    broker.Record // as it lies in the dead letter topic
}

// ParseDeadLetter reads a record of a dead letter topic. It fails on a record that is not one.
func ParseDeadLetter(r broker.Record) (DeadLetter, error) {
	d := DeadLetter{Reason: r.Header(headerDeadReason), Group: r.Header(headerDeadGroup), Topic: r.Header(headerDeadTopic), Size: len(r.Value), Record: r}
	if d.Group == "" || d.Topic == "" {
		return d, fmt.Errorf("%s/%d at %d is no dead letter: the headers %s and %s are missing", r.Topic, r.Partition, r.Offset, headerDeadGroup, headerDeadTopic)
	}
	// What follows is information for people: unreadable parts stay zero.
	d.Partition, _ = strconv.Atoi(r.Header(headerDeadPartition))
	d.Offset, _ = strconv.ParseInt(r.Header(headerDeadOffset), 10, 64)
	d.Attempts, _ = strconv.Atoi(r.Header(headerDeadAttempts))
	d.Time, _ = time.Parse(time.RFC3339Nano, r.Header(headerDeadTime))
	ours := d.Record
	ours.Headers = r.Headers[:d.prefix()]
	if d.Truncated = ours.Header(headerDeadTruncated) == "true"; d.Truncated {
		d.Size, _ = strconv.Atoi(ours.Header(headerDeadSize))
	}
	return d, nil
}

// prefix is how many headers, of those that come first, tell about the dead letter; 0 in a letter of an older version,
// which has them last.
func (d DeadLetter) prefix() int {
	hs := d.Record.Headers
	if len(hs) == 0 || hs[0].Key != headerDeadID {
		return 0
	}
	return slices.IndexFunc(hs, func(h broker.Header) bool { return h.Key == headerDeadTime }) + 1
}

// original is the message's headers as they were before it died.
func (d DeadLetter) original() []broker.Header {
	hs := d.Record.Headers
	if n := d.prefix(); n > 0 {
		return hs[n:]
	}
	return slices.DeleteFunc(slices.Clone(hs), func(h broker.Header) bool {
		return strings.HasPrefix(h.Key, headerDeadPrefix) || h.Key == headerRedrive
	})
}

// Redrive makes the record that puts the message back where it came from. Its group will handle it once more, exactly
// once however often the same message is redriven; other groups of the topic skip it. If it dies again, that is another
// dead letter, which can be redriven once more. Of a truncated one only [RedriveLetters] can make it: the record is
// zero.
func (d DeadLetter) Redrive() broker.Record {
	if d.Truncated {
		return broker.Record{}
	}
	return d.back(d.Record, d.original())
}

// back is the record that brings r's key and value back, with the message's headers.
func (d DeadLetter) back(r broker.Record, headers []broker.Header) broker.Record {
	marks := []broker.Header{{Key: headerRedrive, Value: []byte(d.mark())}}
	if id := d.Record.Header(headerDeadID); id != "" {
		marks = append(marks, broker.Header{Key: headerRedriveID, Value: []byte(id)})
	}
	return broker.Record{Topic: d.Topic, Key: r.Key, Value: r.Value, Time: r.Time, Headers: append(marks, headers[redriveHeaders(headers):]...)}
}

// mark names the redriven message: for whom, and where it died. It is the same for every copy of a dead letter, which a
// relay may publish twice.
func (d DeadLetter) mark() string {
	partition, err := strconv.Atoi(d.Record.Header(headerDeadPartition))
	offset, err2 := strconv.ParseInt(d.Record.Header(headerDeadOffset), 10, 64)
	if err != nil || err2 != nil { // somebody else's letter: it has only its own place
		return fmt.Sprintf("%s@%s/%d/%d", d.Group, d.Record.Topic, d.Record.Partition, d.Record.Offset)
	}
	return fmt.Sprintf("%s@%s/%d/%d", d.Group, d.Topic, partition, offset)
}

// redriveHeaders tells how many headers at the beginning are those of a redriven message.
func redriveHeaders(hs []broker.Header) int {
	switch {
	case len(hs) == 0 || hs[0].Key != headerRedrive || markedFor(string(hs[0].Value)) == "":
		return 0
	case len(hs) > 1 && hs[1].Key == headerRedriveID:
		return 2
	}
	return 1
}

// markedFor is the consumer group that a mark names; "" if it is no mark.
func markedFor(mark string) string {
	at := strings.LastIndexByte(mark, '@') // no topic has one in its name
	parts := strings.Split(mark[at+1:], "/")
	if at < 0 || len(parts) != 3 || parts[0] == "" {
		return ""
	}
	for _, n := range parts[1:] {
		if _, err := strconv.ParseUint(n, 10, 63); err != nil {
			return ""
		}
	}
	return mark[:at]
}
