package saga

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/converge-dev/converge/pkg/broker"
)

// Upcaster is one step of a topic's history, made by [Upcast].
type Upcaster struct {
	from         int
	takes, makes reflect.Type
	read         func(value []byte) (any, error) // a value of the old version
	up           func(old any) (any, error)
}

// Upcast declares that version from of a topic's values was Old, and how such a value becomes one of version from+1. It
// is given to [NewTopic], a step for each version that may still lie in the topic:
//
//	var Placed = saga.NewTopic[PlacedV3]("order.placed", saga.Upcast(1, v1to2), saga.Upcast(2, v2to3))
//
// Handlers and [Decode] see PlacedV3 only. A value of version 1 is read and validated as that step's Old, passes both
// functions, and is validated as PlacedV3. An error or a panic of up means that no code can handle the message: it is a
// dead letter. up has no effects; several goroutines may call it at once.
func Upcast[Old, New any](from int, up func(Old) (New, error)) Upcaster {
	return Upcaster{
		from: from, takes: reflect.TypeFor[Old](), makes: reflect.TypeFor[New](),
		read: func(value []byte) (any, error) { return decodeData[Old](value) },
		up:   func(old any) (any, error) { return up(old.(Old)) },
	}
}

// history is what a topic knows of the versions before the current one.
type history struct {
	eventType string     // ce_type of the current version
	steps     []Upcaster // from the oldest version that is known to the current one
}

// newHistory is nil for a topic whose values have one version. It panics where the steps do not follow each other up to
// current.
func newHistory(topic string, current reflect.Type, steps []Upcaster) *history {
	if len(steps) == 0 {
		return nil
	}
	for i, s := range steps {
		next := current
		if i+1 < len(steps) {
			next = steps[i+1].takes
		}
		switch {
		case s.from < 1:
			panic(fmt.Sprintf("topic %s: Upcast from version %d: the first version is 1", topic, s.from))
		case i+1 < len(steps) && steps[i+1].from != s.from+1:
			panic(fmt.Sprintf("topic %s: Upcast from version %d follows the one from version %d; declare one step for each version, in order",
				topic, steps[i+1].from, s.from))
		case s.makes != next:
			panic(fmt.Sprintf("topic %s: Upcast from version %d makes %s, but version %d is %s", topic, s.from, s.makes, s.from+1, next))
		}
	}
	return &history{eventType: eventType(topic, steps[0].from+len(steps)), steps: steps}
}

// eventType is the ce_type of a version: the topic's name, with ".v2" and so on behind it from the second version on.
func eventType(topic string, version int) string {
	if version == 1 {
		return topic
	}
	return topic + ".v" + strconv.Itoa(version)
}

// bounds are the oldest and the newest version that are known.
func (h *history) bounds() (oldest, newest int) {
	if h == nil {
		return 1, 1
	}
	return h.steps[0].from, h.steps[0].from + len(h.steps)
}

// versionOf is the version that ce_type says: N in "<topic>.vN". Anything else is version 1: the topic's own name, a
// foreign producer's type, and none at all.
func versionOf(eventType []byte, topic string) int {
	digits := len(topic) + len(".v")
	if len(eventType) <= digits || string(eventType[:len(topic)]) != topic || string(eventType[len(topic):digits]) != ".v" {
		return 1
	}
	n, err := strconv.ParseUint(string(eventType[digits:]), 10, 31) // one that is too large is the largest
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 1
	}
	return int(n)
}

// unknown says that a version is none of those that are known. That is no fault of the message: it can be redriven to a
// service that knows it.
func (h *history) unknown(topic string, version int) error {
	oldest, newest := h.bounds()
	known := fmt.Sprintf("version %d", newest)
	if oldest < newest {
		known = fmt.Sprintf("versions %d to %d", oldest, newest)
	}
	if version > newest {
		return fmt.Errorf("unknown version: %s has version %d, and this service knows %s; upgrade this service, then redrive",
			topic, version, known)
	}
	return fmt.Errorf("unknown version: %s has version %d, and this service knows %s; give the topic an Upcast from version %d, then redrive",
		topic, version, known, version)
}

// decode reads a record's value, of whichever version it is. Its content type must be JSON, or not given.
func (t Topic[T]) decode(r *broker.Record) (data T, err error) {
	var eventType, contentType []byte
	for _, h := range slices.Backward(r.Headers) { // the first of a name counts
		switch h.Key {
		case headerType:
			eventType = h.Value
		case headerContentType:
			contentType = h.Value
		}
	}
	if !isJSON(contentType) {
		return data, fmt.Errorf("the content type %q is not JSON: send application/json, or no content-type header", short(contentType))
	}
	oldest, newest := t.history.bounds()
	switch version := versionOf(eventType, t.name); {
	case version == newest:
		data, err = decodeData[T](r.Value)
	case version < oldest || version > newest:
		return data, t.history.unknown(t.name, version)
	default:
		data, err = upcast[T](t.history.steps[version-oldest:], r.Value)
	}
	if err != nil && structured(contentType) {
		err = fmt.Errorf("%w (a CloudEvent in structured mode is not unpacked: send it in binary mode, its attributes in ce_ headers)", err)
	}
	return data, err
}

// upcast reads a value of the first step's old version and takes it through all steps. A panic is an error.
func upcast[T any](steps []Upcaster, value []byte) (data T, err error) {
	defer recovered(&err)
	v, err := steps[0].read(value)
	if err != nil {
		return data, fmt.Errorf("version %d: %w", steps[0].from, err)
	}
	for _, s := range steps {
		if v, err = s.up(v); err != nil {
			return data, fmt.Errorf("upcast from version %d: %w", s.from, err)
		}
	}
	data = v.(T)
	if v, ok := any(data).(validator); ok {
		if err := v.Validate(); err != nil {
			return data, fmt.Errorf("upcast from version %d: invalid: %w", steps[0].from, err)
		}
	}
	return data, nil
}

// isJSON tells whether a content type is JSON's (RFC 6839: any that ends in +json), or not given. Parameters and letter
// case do not matter; that the value is UTF-8 is checked on the value.
func isJSON(contentType []byte) bool {
	if len(contentType) == 0 || string(contentType) == "application/json" {
		return true
	}
	media := mediaType(contentType)
	return media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// structured tells whether a content type is that of the CloudEvents Kafka binding's structured mode.
func structured(contentType []byte) bool {
	return len(contentType) > 0 && strings.HasPrefix(mediaType(contentType), "application/cloudevents")
}

// mediaType is a content type without its parameters, in lower case.
func mediaType(contentType []byte) string {
	media, _, _ := bytes.Cut(contentType, []byte{';'})
	return strings.ToLower(string(bytes.TrimSpace(media)))
}

// Version is one version of a topic's values.
type Version struct {
	Number    int
	EventType string                   // its ce_type
	Type      reflect.Type             // of its values
	Check     func(value []byte) error // reads a value as consumers do, and says why they refuse it
}

// Versions lists the versions of the topic's values that can be read, oldest first: for tools and tests that look at
// contracts.
func (t Topic[T]) Versions() []Version {
	var vs []Version
	_, newest := t.history.bounds()
	if t.history != nil {
		for _, s := range t.history.steps {
			check := func(value []byte) error { _, err := s.read(value); return err }
			vs = append(vs, Version{s.from, eventType(t.name, s.from), s.takes, check})
		}
	}
	check := func(value []byte) error { _, err := decodeData[T](value); return err }
	return append(vs, Version{newest, t.eventType(), reflect.TypeFor[T](), check})
}

// eventType is the ce_type of the topic's current version.
func (t Topic[T]) eventType() string {
	if t.history == nil {
		return t.name
	}
	return t.history.eventType
}
