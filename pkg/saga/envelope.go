package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/trace"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/clock"
	"github.com/converge-dev/converge/pkg/outbox"
)

// Headers follow the CloudEvents 1.0 Kafka protocol binding in binary mode; traceparent has its W3C name, which
// OpenTelemetry's Kafka instrumentation reads too.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerType        = "ce_type"
	headerSource      = "ce_source"
	headerSubject     = "ce_subject"
	headerTime        = "ce_time"
	headerCorrelation = "ce_correlationid"
	headerCausation   = "ce_causationid"
	headerContentType = "content-type"
	headerTraceparent = "traceparent"
	// headerRedrive marks a message that came back from a dead letter topic: its inbox entry is not the first one's.
	headerRedrive = "converge-redrive"
)

// maxEventBytes is what brokers take with their default settings, with room for the envelope.
const maxEventBytes = 900 << 10

type validator interface{ Validate() error }

// encode makes the outbox rows of events that a service's consumer emits.
func encode(service, consumer string, outs []Out) ([]outbox.Message, error) {
	msgs := make([]outbox.Message, len(outs))
	index := map[uuid.UUID]int{} // how many events each cause has so far
	for i := range outs {
		o := &outs[i]
		if v, ok := o.Data.(validator); ok {
			if err := v.Validate(); err != nil {
				return nil, fmt.Errorf("emit %s: %w", o.Topic, err)
			}
		}
		value, err := json.Marshal(o.Data)
		if err != nil {
			return nil, fmt.Errorf("emit %s: %w", o.Topic, err)
		}
		if len(value) > maxEventBytes {
			return nil, fmt.Errorf("emit %s: the event has %d bytes, at most %d can be published", o.Topic, len(value), maxEventBytes)
		}
		m := Meta{ID: o.id, Key: o.Key, Topic: o.Topic, Time: clock.Now().UTC(), CorrelationID: o.id, Traceparent: o.traceparent}
		if o.id == uuid.Nil {
			m.ID = derive(o.Cause.ID, consumer, index[o.Cause.ID])
			m.CorrelationID, m.CausationID = o.Cause.CorrelationID, o.Cause.ID
			traceID := spanContext(o.Cause.Traceparent).TraceID()
			if !traceID.IsValid() {
				traceID = trace.TraceID(m.CorrelationID)
			}
			m.Traceparent = traceparent(traceID, m.ID)
			index[o.Cause.ID]++
		}
		msgs[i] = outbox.Message{Topic: o.Topic, Key: []byte(o.Key), Value: value, Headers: headers(service, m)}
	}
	return msgs, nil
}

func headers(service string, m Meta) []broker.Header {
	hs := []broker.Header{
		{Key: headerSpecVersion, Value: []byte("1.0")},
		{Key: headerID, Value: []byte(m.ID.String())},
		{Key: headerType, Value: []byte(m.Topic)},
		{Key: headerSource, Value: []byte("/" + service)},
		{Key: headerSubject, Value: []byte(m.Key)},
		{Key: headerTime, Value: m.Time.AppendFormat(nil, time.RFC3339Nano)},
		{Key: headerContentType, Value: []byte("application/json")},
		{Key: headerTraceparent, Value: []byte(m.Traceparent)},
		{Key: headerCorrelation, Value: []byte(m.CorrelationID.String())},
	}
	if m.CausationID != uuid.Nil {
		hs = append(hs, broker.Header{Key: headerCausation, Value: []byte(m.CausationID.String())})
	}
	return hs
}

// decodeMeta reads a record's envelope. It takes what there is: a message typed into the console producer has no
// headers, and is identified by its place in the log. The inbox's id differs from the message's where the group's own dead
// letter comes back.
func decodeMeta(group string, r *broker.Record) (m Meta, inboxID uuid.UUID) {
	m = Meta{Key: string(r.Key), Topic: r.Topic, Time: r.Time, Traceparent: r.Header(headerTraceparent)}
	if t, err := time.Parse(time.RFC3339Nano, r.Header(headerTime)); err == nil {
		m.Time = t.UTC()
	}
	switch id := r.Header(headerID); {
	case id == "":
		m.ID = idOf(r.Time, r.Topic, strconv.Itoa(r.Partition), strconv.FormatInt(r.Offset, 10))
	default:
		var err error
		if m.ID, err = uuid.Parse(id); err != nil {
			m.ID = idOf(m.Time, r.Header(headerSource), id)
		}
	}
	m.CorrelationID, m.CausationID = m.ID, uuid.Nil
	if id, err := uuid.Parse(r.Header(headerCorrelation)); err == nil {
		m.CorrelationID = id
	}
	if id, err := uuid.Parse(r.Header(headerCausation)); err == nil {
		m.CausationID = id
	}
	inboxID = m.ID
	if redrive := r.Header(headerRedrive); strings.HasPrefix(redrive, group+"@") {
		inboxID = derive(m.ID, headerRedrive+redrive, 0)
	}
	return m, inboxID
}

// TimeOf is when that happened which a record tells: the time in its envelope or, where it has none, when it was written.
func TimeOf(r broker.Record) time.Time {
	m, _ := decodeMeta("", &r)
	return m.Time
}

func decodeData[T any](value []byte) (T, error) {
	var data T
	if err := json.Unmarshal(value, &data); err != nil {
		return data, fmt.Errorf("decode: %w", err)
	}
	if v, ok := any(data).(validator); ok {
		if err := v.Validate(); err != nil {
			return data, fmt.Errorf("invalid: %w", err)
		}
	}
	return data, nil
}

// Publish writes events that begin a saga to the outbox of tx; they exist if it commits. Wake the relay after that.
func Publish(ctx context.Context, tx outbox.Sender, service string, outs ...Out) error {
	msgs, err := encode(service, service, outs)
	if err != nil {
		return err
	}
	return outbox.Insert(ctx, tx, msgs)
}

// Encode makes the record of an event that begins a saga, for tools and tests. Services use [Publish].
func Encode(service string, out Out) (broker.Record, error) {
	msgs, err := encode(service, service, []Out{out})
	if err != nil {
		return broker.Record{}, err
	}
	m := msgs[0]
	return broker.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers}, nil
}

// Decode reads a record of the topic, for tools and tests.
func Decode[T any](topic Topic[T], r broker.Record) (Msg[T], error) {
	if r.Topic != topic.name {
		return Msg[T]{}, fmt.Errorf("the record is of %s, not of %s", r.Topic, topic.name)
	}
	meta, _ := decodeMeta("", &r)
	data, err := decodeData[T](r.Value)
	return Msg[T]{meta, data}, err
}

// Queue is [Publish] as part of a batch of statements of one transaction, for a relay to take over when it is done.
func Queue(b *pgx.Batch, relay *outbox.Relay, service string, outs ...Out) (*outbox.Handover, error) {
	msgs, err := encode(service, service, outs)
	if err != nil {
		return nil, err
	}
	return relay.Queue(b, msgs)
}
