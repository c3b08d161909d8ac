package web

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

func resolve(reg huma.Registry, s *huma.Schema) *huma.Schema {
	for s.Ref != "" {
		s = reg.SchemaFromRef(s.Ref)
	}
	return s
}

// walkable reports whether a schema is one plain type, each rule of which concerns one value at a time.
func walkable(s *huma.Schema) bool {
	if len(s.OneOf)+len(s.AnyOf)+len(s.AllOf) > 0 || s.Not != nil {
		return false
	}
	switch s.Type {
	case huma.TypeObject:
		_, others := s.AdditionalProperties.(*huma.Schema)
		return !others && len(s.DependentRequired) == 0 && s.MinProperties == nil && s.MaxProperties == nil
	case huma.TypeArray:
		return s.Items != nil
	default:
		return s.Type != ""
	}
}

// describe says in words what a schema takes, to end a sentence that starts with "expected".
func describe(s *huma.Schema) string {
	switch s.Type {
	case huma.TypeBoolean:
		return "true or false"
	case huma.TypeInteger:
		return "a whole number" + span(s)
	case huma.TypeNumber:
		return "a number" + span(s)
	case huma.TypeString:
		return describeString(s)
	case huma.TypeArray:
		return "a list" + count(s.MinItems, s.MaxItems, "item")
	case huma.TypeObject:
		return "an object"
	default:
		return "a value that fits the schema"
	}
}

func describeString(s *huma.Schema) string {
	switch {
	case len(s.Enum) > 0:
		names := make([]string, 0, len(s.Enum))
		for _, one := range s.Enum {
			names = append(names, fmt.Sprint(one))
		}
		return "one of " + strings.Join(names, ", ")
	case s.PatternDescription != "":
		return s.PatternDescription
	case s.Format == "uuid":
		return "a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f"
	case s.Format == "date-time":
		return "a time, such as 2026-01-31T23:59:59Z"
	case s.Pattern != "":
		return "text that matches " + s.Pattern
	case s.Format != "":
		return "text of the format " + s.Format
	default:
		return "text" + count(s.MinLength, s.MaxLength, "character")
	}
}

// span is the range of a number.
func span(s *huma.Schema) string {
	format := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	var text string
	switch {
	case s.Minimum != nil && s.Maximum != nil:
		return " from " + format(*s.Minimum) + " to " + format(*s.Maximum)
	case s.Minimum != nil:
		text = " of at least " + format(*s.Minimum)
	case s.Maximum != nil:
		text = " of at most " + format(*s.Maximum)
	}
	if s.ExclusiveMinimum != nil {
		text += " above " + format(*s.ExclusiveMinimum)
	}
	if s.ExclusiveMaximum != nil {
		text += " below " + format(*s.ExclusiveMaximum)
	}
	return text
}

// count is how many there may be of something.
func count(least, most *int, thing string) string {
	switch {
	case least != nil && most != nil:
		return fmt.Sprintf(" of %d to %d %ss", *least, *most, thing)
	case least != nil && *least == 1:
		return fmt.Sprintf(" of at least 1 %s", thing)
	case least != nil:
		return fmt.Sprintf(" of at least %d %ss", *least, thing)
	case most != nil:
		return fmt.Sprintf(" of at most %d %ss", *most, thing)
	default:
		return ""
	}
}
