package checker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/facts"
)

// Held is what the services hold of one thing, in the order in which they were declared. As JSON it is an object of
// what is there, by [Service.Holds].
type Held []Holding

// Holding is what one service holds of a thing.
type Holding struct {
	Service string
	Name    string      // what it is called: [Service.Holds]
	Fact    *facts.Fact // nil: nothing
}

// Of is what a service holds of the thing; nil: nothing.
func (h Held) Of(service string) *facts.Fact {
	for _, one := range h {
		if one.Service == service {
			return one.Fact
		}
	}
	return nil
}

// member tells whether the thing is in a service's set.
func (h Held) member(service string) bool {
	f := h.Of(service)
	return f != nil && f.Member
}

// with is what is held when a service holds something else.
func (h Held) with(service string, f *facts.Fact) Held {
	h = slices.Clone(h)
	for i := range h {
		if h[i].Service == service {
			h[i].Fact = f
		}
	}
	return h
}

// nothing tells whether no service holds anything.
func (h Held) nothing() bool {
	return !slices.ContainsFunc(h, func(one Holding) bool { return one.Fact != nil })
}

// Same tells whether two looks saw the same; what is there for people may change meanwhile.
func (h Held) Same(o Held) bool {
	return slices.EqualFunc(h, o, func(a, b Holding) bool { return a.Service == b.Service && same(a.Fact, b.Fact) })
}

func same(a, b *facts.Fact) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Member == b.Member && a.Status == b.Status && a.Amount == b.Amount && a.Currency == b.Currency && a.ChangedAt.Equal(b.ChangedAt) &&
		a.Items == b.Items && (a.UserID == nil) == (b.UserID == nil) && (a.UserID == nil || *a.UserID == *b.UserID)
}

func (h Held) String() string {
	parts := make([]string, 0, len(h))
	for _, one := range h {
		if one.Fact == nil {
			parts = append(parts, "no "+one.Name)
			continue
		}
		text := one.Name + " " + one.Fact.Status
		if one.Fact.Amount != 0 {
			text += fmt.Sprintf(" (%d %s)", one.Fact.Amount, one.Fact.Currency)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// MarshalJSON implements [json.Marshaler].
func (h Held) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // whoever encodes what this is part of decides
	sep := byte('{')
	for _, one := range h {
		if one.Fact == nil {
			continue
		}
		b.WriteByte(sep)
		sep = ','
		if err := enc.Encode(one.Name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := enc.Encode(one.Fact); err != nil {
			return nil, err
		}
	}
	if sep == '{' {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// UnmarshalJSON implements [json.Unmarshaler]. What was not there is not known then, and services have the names of
// what they hold.
func (h *Held) UnmarshalJSON(data []byte) error {
	var all map[string]*facts.Fact
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	*h = nil
	dec := json.NewDecoder(bytes.NewReader(data)) // once more, for the order
	for depth := 0; dec.More() || depth > 0; {
		token, err := dec.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if name, ok := token.(string); ok && depth == 1 {
			*h = append(*h, Holding{Service: name, Name: name, Fact: all[name]})
		}
	}
	return nil
}
