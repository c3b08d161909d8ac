package saga

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"
	"unicode/utf8"

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
	// A message that came back from a dead letter topic begins with these: for whom, and the id that it had.
	headerRedrive   = "converge-redrive"
	headerRedriveID = "converge-id"
)

type validator interface{ Validate() error }

// emission is a place where a cause's events are counted.
type emission struct {
	cause uuid.UUID
	topic string
}

// encode makes the rows of events that a service's consumer emits, now or later.
func encode(service, consumer string, outs []Out) (w writes, err error) {
	w.events = make([]outbox.Message, 0, len(outs))
	index := map[emission]int{} // how many events each cause has so far in a topic
	for i := range outs {
		o := &outs[i]
		if o.timing.kind == cancelTimer {
			w.add(o, outbox.Message{Topic: o.Topic, Key: []byte(o.Key)})
			continue
		}
		if o.wrong != nil {
			return writes{}, fmt.Errorf("publish %s: %w", o.Topic, o.wrong)
		}
		value, err := encodeData(o.Data)
		if err != nil {
			return writes{}, fmt.Errorf("emit %s: %w", o.Topic, err)
		}
		m := Meta{ID: o.id, Key: o.Key, Topic: o.Topic, Time: o.timing.due(clock.Now()).UTC(), CorrelationID: o.id, Traceparent: o.traceparent}
		if o.id == uuid.Nil {
			if o.cause.ID == uuid.Nil {
				return writes{}, fmt.Errorf("emit %s: the event has no id and no cause; make it with New or Emit", o.Topic)
			}
			at := emission{o.cause.ID, o.Topic}
			if o.timing.kind != publishNow { // by its name: it may replace one that the cause has set, and is not counted among what is emitted at once
				at.topic += "\x00timer\x00" + o.Key
			}
			m.ID = derive(o.cause.ID, consumer, at.topic, index[at])
			m.CorrelationID, m.CausationID = o.cause.CorrelationID, o.cause.ID
			traceID := spanContext(o.cause.Traceparent).TraceID()
			if !traceID.IsValid() {
				traceID = trace.TraceID(m.CorrelationID)
			}
			m.Traceparent = traceparent(traceID, m.ID)
			if o.timing.kind == publishNow {
				index[at]++
			}
		}
		msg := outbox.Message{Topic: o.Topic, Key: []byte(o.Key), Value: value, Headers: headers(service, cmp.Or(o.eventType, o.Topic), m)}
		if n := msg.Size(); n > broker.MaxRecordBytes {
			return writes{}, fmt.Errorf("emit %s: the event has %d bytes with its key and headers, at most %d can be published", o.Topic, n, broker.MaxRecordBytes)
		}
		w.add(o, msg)
	}
	return w, nil
}

// encodeData makes an event's value. A panic of the event's own methods is an error like any other of theirs.
func encodeData(data any) (value []byte, err error) {
	defer recovered(&err)
	if v, ok := data.(validator); ok {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	return json.Marshal(data)
}

func headers(service, eventType string, m Meta) []broker.Header {
	hs := []broker.Header{
		{Key: headerSpecVersion, Value: []byte("1.0")},
		{Key: headerID, Value: []byte(m.ID.String())},
		{Key: headerType, Value: []byte(eventType)},
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
// headers, and is identified by its place in the log.
func decodeMeta(r *broker.Record) Meta {
	m := Meta{Key: string(r.Key), Topic: r.Topic, Time: r.Time, Traceparent: r.Header(headerTraceparent), Tombstone: r.Value == nil}
	if t, err := time.Parse(time.RFC3339Nano, r.Header(headerTime)); err == nil && sane(t) {
		m.Time = t.UTC()
	}
	correlation, notOurs := uuid.Parse(r.Header(headerCorrelation))
	m.ID = idOf(r, notOurs == nil)
	m.CorrelationID = m.ID
	if notOurs == nil {
		m.CorrelationID = correlation
	}
	if id, err := uuid.Parse(r.Header(headerCausation)); err == nil {
		m.CausationID = id
	}
	return m
}

// idOf is the id of a message, which every delivery of it shares. CloudEvents makes ids unique within their source
// only, so a foreign one counts together with its source, even if it is a UUID; our own envelope is known by its
// correlation id.
func idOf(r *broker.Record, ours bool) uuid.UUID {
	if markedFor(r.Header(headerRedrive)) != "" { // its place is another now
		if id, err := uuid.Parse(r.Header(headerRedriveID)); err == nil {
			return id
		}
	}
	id, source := r.Header(headerID), r.Header(headerSource)
	if id == "" {
		return placeID(r.Time, r.Topic, r.Partition, r.Offset)
	}
	if ours {
		if id, err := uuid.Parse(id); err == nil {
			return id
		}
	}
	if source == "" {
		return foreignID(id)
	}
	return foreignID(source, id)
}

// sane tells whether an event can have happened at t: since there are such events, and not in a future that no two
// clocks differ by.
func sane(t time.Time) bool {
	return t.Year() >= 2000 && t.Before(clock.Now().Add(24*time.Hour))
}

// TimeOf is when that happened which a record tells: the time in its envelope or, where it has no possible one, when it
// was written.
func TimeOf(r broker.Record) time.Time { return decodeMeta(&r).Time }

// decodeData reads a value. A panic of the type's own methods is an error like any other of theirs.
func decodeData[T any](value []byte) (data T, err error) {
	defer recovered(&err)
	if !utf8.Valid(value) {
		return data, errors.New("decode: the value is not UTF-8")
	}
	if err := json.Unmarshal(value, &data); err != nil {
		return data, fmt.Errorf("decode: %w", err)
	}
	invalid, err := checkFields(reflect.TypeFor[T](), value)
	if err != nil {
		return data, fmt.Errorf("decode: %w", err)
	}
	if v, ok := any(data).(validator); ok {
		invalid = errors.Join(v.Validate(), invalid)
	}
	if invalid != nil {
		return data, fmt.Errorf("invalid: %w", invalid)
	}
	return data, nil
}

// Publish writes events that begin a saga to the outbox of tx, and timers; they exist if it commits. Wake the relay
// after that. It fails on an event that the service does not declare; see [Declare].
func Publish(ctx context.Context, tx outbox.Sender, service string, outs ...Out) error {
	for i := range outs {
		if err := undeclared(ctx, outs[i].Topic); err != nil {
			return fmt.Errorf("publish %s: %w", outs[i].Topic, err)
		}
	}
	w, err := encode(service, service, outs)
	if err != nil {
		return err
	}
	return w.insert(ctx, tx, service)
}

// Encode makes the record of an event that begins a saga, for tools and tests. Services use [Publish].
func Encode(service string, out Out) (broker.Record, error) {
	out.timing = timing{}
	w, err := encode(service, service, []Out{out})
	if err != nil {
		return broker.Record{}, err
	}
	m := w.events[0]
	return broker.Record{Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers}, nil
}

// Decode reads a record of the topic, for tools and tests.
func Decode[T any](topic Topic[T], r broker.Record) (Msg[T], error) {
	if r.Topic != topic.name {
		return Msg[T]{}, fmt.Errorf("the record is of %s, not of %s", r.Topic, topic.name)
	}
	data, err := topic.decode(&r)
	return Msg[T]{decodeMeta(&r), data}, err
}

// Queue is [Publish] as part of a batch of statements of one transaction, for a relay to take over when it is done.
func Queue(b *pgx.Batch, relay *outbox.Relay, service string, outs ...Out) (*outbox.Handover, error) {
	w, err := encode(service, service, outs)
	if err != nil {
		return nil, err
	}
	return w.queue(b, relay, service)
}
