package sagatest

import (
	"encoding"
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/saga"
)

// schema is the part of JSON Schema that says what encoding/json makes of a Go type.
type schema struct {
	Title      string             `json:"title,omitempty"`
	Type       string             `json:"type,omitempty"` // empty: any value
	Format     string             `json:"format,omitempty"`
	Properties map[string]*schema `json:"properties,omitempty"`
	Required   []string           `json:"required,omitempty"` // of the properties, sorted
	Items      *schema            `json:"items,omitempty"`    // of a list
	Values     *schema            `json:"additionalProperties,omitempty"`
}

func (s *schema) requires(name string) bool { return slices.Contains(s.Required, name) }

func (s *schema) String() string {
	text := s.Type
	if text == "" {
		text = "any value"
	}
	if s.Format != "" {
		text += " (" + s.Format + ")"
	}
	return text
}

// describe is the contract of a version.
func describe(v saga.Version) *schema {
	s := schemaOf(v.Type, nil)
	s.Title = v.EventType
	for _, value := range []any{struct{}{}, skeleton(s)} { // without any field; and with what has fields of its own
		text, err := json.Marshal(value)
		if err == nil {
			err = v.Check(text)
		}
		if err != nil {
			s.mark(err)
		}
	}
	return s
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// schemaOf looks into a type; within holds those it is in the middle of, for types that contain themselves.
func schemaOf(t reflect.Type, within []reflect.Type) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[time.Time]():
		return &schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[uuid.UUID]():
		return &schema{Type: "string", Format: "uuid"}
	}
	if p := reflect.PointerTo(t); p.Implements(jsonMarshaler) || p.Implements(textMarshaler) {
		return schemaOfValue(t)
	}
	within = append(within, t)
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return &schema{Type: "integer"}
	case reflect.Float32, reflect.Float64:
		return &schema{Type: "number"}
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Slice, reflect.Array:
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			return &schema{Type: "string", Format: "byte"} // base64
		}
		return &schema{Type: "array", Items: inner(t.Elem(), within)}
	case reflect.Map:
		return &schema{Type: "object", Values: inner(t.Elem(), within)}
	case reflect.Struct:
		s := &schema{Type: "object", Properties: map[string]*schema{}}
		s.add(t, within)
		slices.Sort(s.Required)
		return s
	}
	return &schema{}
}

// inner is the schema of a part. Of a type that contains itself it is told only that it is an object or a list.
func inner(t reflect.Type, within []reflect.Type) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if !slices.Contains(within, t) {
		return schemaOf(t, within)
	}
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
		return &schema{Type: "array"}
	}
	return &schema{Type: "object"}
}

// schemaOfValue asks a type that writes its JSON itself: what its zero value looks like.
func schemaOfValue(t reflect.Type) *schema {
	text, err := json.Marshal(reflect.New(t).Interface())
	if err != nil {
		return &schema{}
	}
	kinds := map[byte]string{'"': "string", '{': "object", '[': "array", 't': "boolean", 'f': "boolean", 'n': ""}
	kind, ok := kinds[text[0]]
	if !ok {
		kind = "number"
	}
	return &schema{Type: kind}
}

// add takes the fields of a struct, and of those that are embedded in it, as encoding/json does. The outer one of two
// with a name wins.
func (s *schema) add(t reflect.Type, within []reflect.Type) {
	var embedded []reflect.Type
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		part := f.Type
		if part.Kind() == reflect.Pointer {
			part = part.Elem()
		}
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && part.Kind() == reflect.Struct:
			embedded = append(embedded, part)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			if s.Properties[name] != nil {
				continue
			}
			s.Properties[name] = inner(f.Type, within)
			if slices.Contains(strings.Split(options, ","), "string") {
				s.Properties[name] = &schema{Type: "string", Format: s.Properties[name].Type}
			}
			if f.Tag.Get("saga") == "required" {
				s.require(name)
			}
		}
	}
	for _, part := range embedded {
		if !slices.Contains(within, part) {
			s.add(part, append(within, part))
		}
	}
}

func (s *schema) require(name string) {
	if !s.requires(name) {
		s.Required = append(s.Required, name)
		slices.Sort(s.Required)
	}
}

// skeleton is a value that has only its objects, and lists of one: of their fields, too, Validate can say that they are
// missing.
func skeleton(s *schema) any {
	value := map[string]any{}
	for name, p := range s.Properties {
		switch {
		case len(p.Properties) > 0:
			value[name] = skeleton(p)
		case p.Items != nil && len(p.Items.Properties) > 0:
			value[name] = []any{skeleton(p.Items)}
		}
	}
	return value
}

// fieldPath is a field's path at the beginning of an error: orderId, items[0].quantity.
var fieldPath = regexp.MustCompile(`^"?([\pL_][\pL\pN_]*(?:\[\d+\])?(?:\.[\pL_][\pL\pN_]*(?:\[\d+\])?)*)`)

// mark makes those fields required that an error names. Joined errors are lines of its text.
func (s *schema) mark(err error) {
	for line := range strings.Lines(strings.TrimPrefix(err.Error(), "invalid: ")) {
		if m := fieldPath.FindStringSubmatch(line); m != nil {
			s.markPath(strings.Split(m[1], "."))
		}
	}
}

func (s *schema) markPath(path []string) {
	name, _, inList := strings.Cut(path[0], "[")
	p := s.Properties[name]
	switch {
	case p == nil:
	case len(path) == 1:
		s.require(name)
	case inList && p.Items != nil:
		p.Items.markPath(path[1:])
	case !inList:
		p.markPath(path[1:])
	}
}
