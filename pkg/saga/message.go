package saga

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"reflect"
	"strconv"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/converge-dev/converge/pkg/clock"
)

// Topic is a Kafka topic and the type of its values. It is named after its one event.
type Topic[T any] struct {
	name    string
	history *history // nil: its values have one version
}

// NewTopic declares a topic whose values are T, as JSON. If T has a method Validate() error, a value that it refuses is
// as undecodable as broken JSON, and so is one without a field of T that has the tag `saga:"required"`.
//
// Where values were of another type before, upcasts say how the older ones are read, a step for each version; see
// [Upcast]. It panics if they do not follow each other up to T: that is a mistake of the program.
func NewTopic[T any](name string, upcasts ...Upcaster) Topic[T] {
	return Topic[T]{name, newHistory(name, reflect.TypeFor[T](), upcasts)}
}

// Name is the topic's name.
func (t Topic[T]) Name() string { return t.name }

func (t Topic[T]) topic() string { return t.name }

// AnyTopic is a [Topic] of any type.
type AnyTopic interface {
	Name() string
	Versions() []Version
	topic() string // only this package's topics
}

// Meta is what every message has besides its data.
type Meta struct {
	ID            uuid.UUID // the event's id: the same however often it is delivered
	Key           string    // the aggregate it tells about, which orders it
	Topic         string
	Time          time.Time // when it happened, UTC
	CorrelationID uuid.UUID // the event that began the saga
	CausationID   uuid.UUID // the event that caused this one
	Traceparent   string    // W3C trace context

	// Tombstone: the record has no value, which says that its key is gone; Data is zero. See [Route.WithTombstones].
	Tombstone bool `json:",omitzero"`
}

// Msg is an event that was received.
type Msg[T any] struct {
	Meta
	Data T
}

// Out is an event to emit, made by [Emit] or, where a saga begins, by [New]: its id comes from there.
type Out struct {
	Topic string
	Key   string
	Data  any

	eventType   string    // ce_type; it names the version of Data
	cause       Meta      // the message that caused it; zero where a saga begins
	id          uuid.UUID // set where a saga begins; derived from the cause otherwise
	traceparent string
	wrong       error  // why it cannot be written
	timing      timing // when it is published; zero: by the transaction that emits it
}

// Keyed returns the same event under another key than its cause's.
func (o Out) Keyed(key string) Out { o.Key = key; return o }

// Emit makes the event that a message caused, under the same key. Its id derives from the cause's id, the consumer, the
// topic and its place among what the cause emits there, so a replay produces the same ids and consumers downstream
// recognise them. One transaction emits all events of one cause that go to one topic.
func Emit[In, T any](cause Msg[In], topic Topic[T], data T) []Out {
	return []Out{{Topic: topic.name, Key: cause.Key, Data: data, eventType: topic.eventType(), cause: cause.Meta}}
}

// New makes an event that begins a saga, for [Publish]. The trace in ctx, if there is one, goes with it.
func New[T any](ctx context.Context, topic Topic[T], key string, data T) Out {
	id := clock.NewID()
	sc := trace.SpanContextFromContext(ctx)
	traceID := sc.TraceID()
	if !sc.IsValid() {
		traceID = trace.TraceID(uuid.New())
	}
	return Out{Topic: topic.name, Key: key, Data: data, eventType: topic.eventType(), id: id, traceparent: traceparent(traceID, id), wrong: undeclared(ctx, topic.name)}
}

// derive makes the id of the index-th event that consumer emits to topic because of cause. It is a UUIDv7 whose time is
// the cause's and whose random part is a hash, so ids of one saga stay together in an index.
func derive(cause uuid.UUID, consumer, topic string, index int) uuid.UUID {
	b := make([]byte, 0, 128) // on the stack
	b = append(append(b, cause[:]...), consumer...)
	b = append(append(append(b, 0), topic...), 0)
	h := sha256.Sum256(binary.BigEndian.AppendUint32(b, uint32(index)))
	return stamped(cause, h[:])
}

// stamped joins the first 48 bits of a UUIDv7, its time, with a hash.
func stamped(time uuid.UUID, hash []byte) (id uuid.UUID) {
	copy(id[:6], time[:6])
	copy(id[6:], hash)
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// hashOf covers names, each with its end.
func hashOf(names ...string) [sha256.Size]byte {
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return sha256.Sum256(b)
}

// placeID identifies a message that carries no id by its place in the log. Its time is the record's, which is as fixed
// as its place.
func placeID(at time.Time, topic string, partition int, offset int64) uuid.UUID {
	h := hashOf(topic, strconv.Itoa(partition), strconv.FormatInt(offset, 10))
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli())<<16)
	return stamped(uuid.UUID(append(ms[:], ms[:]...)), h[:])
}

// foreignID identifies a message by what its producer calls it. It is a UUIDv8 without a time: the producer may send
// the same message again much later.
func foreignID(names ...string) (id uuid.UUID) {
	h := hashOf(names...)
	copy(id[:], h[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// traceparent is a W3C trace context, level 1, whose span is the event itself.
func traceparent(traceID trace.TraceID, event uuid.UUID) string {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, traceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, event[8:])
	return string(append(b, "-01"...))
}

// spanContext parses a traceparent; an invalid one gives an invalid context.
func spanContext(traceparent string) trace.SpanContext {
	var cfg trace.SpanContextConfig
	if len(traceparent) < 55 || traceparent[:3] != "00-" {
		return trace.SpanContext{}
	}
	traceID, err1 := trace.TraceIDFromHex(traceparent[3:35])
	spanID, err2 := trace.SpanIDFromHex(traceparent[36:52])
	if err1 != nil || err2 != nil {
		return trace.SpanContext{}
	}
	cfg.TraceID, cfg.SpanID, cfg.TraceFlags, cfg.Remote = traceID, spanID, trace.FlagsSampled, true
	return trace.NewSpanContext(cfg)
}

// withTrace puts the message's trace into ctx, for logs and for calls that carry it on.
func withTrace(ctx context.Context, m Meta) context.Context {
	if sc := spanContext(m.Traceparent); sc.IsValid() {
		return trace.ContextWithRemoteSpanContext(ctx, sc)
	}
	return ctx
}
