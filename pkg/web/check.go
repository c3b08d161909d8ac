package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// halfPair is the complaint about text that decoding would silently change.
const halfPair = `expected text of whole characters; \ud800 to \udfff stand for one only in pairs`

// timeRange is the complaint about a time outside of the years that ids, databases and JSON can all tell.
const timeRange = "expected a time from 1970 to 9999, such as 2026-01-31T23:59:59Z"

// tooFar reports whether text is a time that cannot be told back in JSON, or before all ids (UUIDv7 counts from 1970).
// The zero time, which Go takes for none, is among these.
func tooFar(text string) bool {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return false // it is no time at all, which is another complaint
	}
	_, offset := t.Zone()
	year := t.UTC().Year()
	return offset <= -24*60*60 || offset >= 24*60*60 || year < 1970 || year > 9999
}

// maxComplaints is how many there are about one body; more help nobody.
const maxComplaints = 20

// checkBody holds a JSON body against its schema and returns what is wrong with it, nil if nothing is.
//
// huma checks a body by decoding it into maps, in which a repeated field, a field in other letters that replaces a
// checked one, and the digits of a large number are no longer seen, and then decodes it again into the Go type with
// what is left of these. This walks the text beside the schema instead, and leaves to huma what a single value must be.
func checkBody(reg huma.Registry, schema *huma.Schema, required bool, body []byte) *huma.ErrorModel {
	if len(bytes.TrimSpace(body)) == 0 {
		if !required {
			return nil
		}
		return malformed("missing, expected " + describe(resolve(reg, schema)))
	}
	if !utf8.Valid(body) {
		return malformed("expected UTF-8 text")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return malformed("expected JSON: " + syntaxError(err, body))
	}
	c := checker{reg: reg, in: scanner{text: body}, path: huma.NewPathBuffer(make([]byte, 0, 64), 0)}
	c.path.Push("body")
	c.value(schema, false)
	if len(c.found) > 0 {
		return Invalid(c.found...)
	}
	return nil
}

func malformed(message string) *huma.ErrorModel {
	field := Field("body", message, nil)
	return Problem(http.StatusBadRequest, TypeMalformedBody, "Malformed body", summary([]*huma.ErrorDetail{field}), field)
}

// syntaxError says what is wrong with the text and where.
func syntaxError(err error, body []byte) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) || syntax.Offset == 0 {
		return err.Error()
	}
	before := body[:syntax.Offset-1]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("%s (line %d, column %d)", syntax, line, column)
}

// checker walks one body whose syntax is right. Each of its methods consumes exactly one value.
type checker struct {
	reg   huma.Registry
	in    scanner
	path  *huma.PathBuffer
	res   huma.ValidateResult
	found []*huma.ErrorDetail
}

func (c *checker) complain(location, message string, value any) {
	if len(c.found) < maxComplaints {
		c.found = append(c.found, Field(location, message, value))
	}
}

func (c *checker) mismatch(s *huma.Schema, value any) {
	c.complain(c.path.String(), "expected "+describe(s), value)
}

// value checks the next value. An optional one may also be null, which leaves it out.
func (c *checker) value(s *huma.Schema, optional bool) {
	s = resolve(c.reg, s)
	if !walkable(s) {
		c.whole(s)
		return
	}
	switch c.in.peek() {
	case '{':
		if s.Type == huma.TypeObject {
			c.object(s)
			return
		}
		c.in.skip()
		c.mismatch(s, nil)
	case '[':
		if s.Type == huma.TypeArray {
			c.array(s)
			return
		}
		c.in.skip()
		c.mismatch(s, nil)
	case '"':
		quoted := c.in.skip()
		text := unquote(quoted)
		switch {
		case strings.ContainsRune(text, 0):
			c.complain(c.path.String(), "expected text without NUL characters", nil)
			return
		case hasLoneSurrogate(quoted):
			c.complain(c.path.String(), halfPair, nil)
			return
		}
		if c.scalar(s, text, text); s.Format == "date-time" && tooFar(text) {
			c.complain(c.path.String(), timeRange, clip(text))
		}
	case 'n':
		c.in.skip()
		if !optional && !s.Nullable {
			c.mismatch(s, nil)
		}
	case 't', 'f':
		v := c.in.skip()[0] == 't'
		c.scalar(s, v, v)
	default:
		c.number(s, json.Number(c.in.skip()))
	}
}

func (c *checker) object(s *huma.Schema) {
	seen := make([]string, 0, 8)
	for c.in.next() {
		start := c.in.pos
		name := c.in.name()
		prop, known := s.Properties[name]
		switch {
		case known && !slices.Contains(seen, name):
			seen = append(seen, name)
			c.path.Push(name)
			c.value(prop, !slices.Contains(s.Required, name))
			c.path.Pop()
			continue
		case known:
			c.complain(c.path.With(name), "given twice, expected once", nil)
		case s.AdditionalProperties != true:
			c.complain(fmt.Sprint(c.path, ".", clip(name)),
				"unknown field, expected one of "+strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", "), nil)
		}
		c.in.skip()
		if s.AdditionalProperties == true && hasLoneSurrogate(c.in.text[start:c.in.pos]) {
			c.complain(c.path.With(name), halfPair, nil)
		}
	}
	for _, name := range s.Required {
		if prop := s.Properties[name]; !prop.ReadOnly && !slices.Contains(seen, name) {
			c.complain(c.path.With(name), "missing, expected "+describe(resolve(c.reg, prop)), nil)
		}
	}
}

func (c *checker) array(s *huma.Schema) {
	n := 0
	var seen map[string]bool
	if s.UniqueItems {
		seen = map[string]bool{}
	}
	for ; c.in.next(); n++ {
		if s.MaxItems != nil && n >= *s.MaxItems {
			c.in.skip()
			continue
		}
		c.path.PushIndex(n)
		c.in.space()
		start := c.in.pos
		c.value(s.Items, false)
		if s.UniqueItems {
			key := canonical(c.in.text[start:c.in.pos])
			if seen[key] {
				c.complain(c.path.String(), "given twice, expected once", nil)
			}
			seen[key] = true
		}
		c.path.Pop()
	}
	if s.MinItems != nil && n < *s.MinItems || s.MaxItems != nil && n > *s.MaxItems {
		c.complain(c.path.String(), fmt.Sprintf("expected %s, got %d", describe(s), n), nil)
	}
}

// number checks a number by its text: a whole one must be written as one, and fit the type that takes it.
func (c *checker) number(s *huma.Schema, n json.Number) {
	if s.Type == huma.TypeInteger {
		bits := 64
		if s.Format == "int32" {
			bits = 32
		}
		if _, err := strconv.ParseInt(n.String(), 10, bits); err != nil {
			if strings.ContainsAny(n.String(), ".eE") {
				c.mismatch(s, clip(n.String()))
			} else {
				c.complain(c.path.String(), fmt.Sprintf("expected %s that fits in %d bits", describe(s), bits), clip(n.String()))
			}
			return
		}
	}
	f, err := n.Float64()
	if err != nil {
		c.mismatch(s, clip(n.String()))
		return
	}
	c.scalar(s, f, n)
}

// scalar holds one value against all that its schema asks for, by huma's rules.
func (c *checker) scalar(s *huma.Schema, v, shown any) {
	c.res.Reset()
	if huma.Validate(c.reg, s, c.path, huma.ModeWriteToServer, v, &c.res); len(c.res.Errors) > 0 {
		c.mismatch(s, shown)
	}
}

// whole checks a value whose schema combines others, or has rules about the value as a whole, entirely by huma's rules.
func (c *checker) whole(s *huma.Schema) {
	var v any
	text := c.in.skip()
	if err := json.Unmarshal(text, &v); err != nil { // its syntax has been checked
		c.complain(c.path.String(), "expected numbers of at most 64 bits", nil)
		return
	}
	if hasLoneSurrogate(text) {
		c.complain(c.path.String(), halfPair, nil)
		return
	}
	c.res.Reset()
	huma.Validate(c.reg, s, c.path, huma.ModeWriteToServer, v, &c.res)
	for _, err := range c.res.Errors {
		if detail, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			c.complain(detail.Location, detail.Message, nil)
		}
	}
}
