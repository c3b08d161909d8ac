package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

const (
	maxComplaints = 20 // about one body; more help nobody
	maxDepth      = 64 // of a body's lists and objects, for schemas that refer to themselves
)

// checkBody holds a JSON body against its schema and returns what is wrong with it, nil if nothing is.
//
// huma checks a body by decoding it into maps first, where a repeated field, a field in other letters that replaces a checked
// one, and a number beyond 53 bits are no longer seen, and then decodes it again into the Go type with what is left of these.
// This walks the tokens beside the schema instead, and leaves to huma what a single value must be.
func checkBody(reg huma.Registry, schema *huma.Schema, required bool, body []byte) *huma.ErrorModel {
	if len(bytes.TrimSpace(body)) == 0 {
		if !required {
			return nil
		}
		return malformed(Field("body", "missing, expected "+describe(resolve(reg, schema)), nil))
	}
	if !utf8.Valid(body) {
		return malformed(Field("body", "expected UTF-8 text", nil))
	}
	c := &checker{reg: reg, dec: json.NewDecoder(bytes.NewReader(body)), path: huma.NewPathBuffer(make([]byte, 0, 64), 0)}
	c.dec.UseNumber()
	c.path.Push("body")
	err := c.value(schema, false)
	offset := c.dec.InputOffset()
	if err == nil {
		if _, err = c.dec.Token(); err == nil {
			err = errors.New("something follows the JSON value")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return malformed(Field("body", "expected JSON: "+syntaxError(err, body, offset), nil))
	}
	if len(c.found) > 0 {
		return Invalid(c.found...)
	}
	return nil
}

func malformed(field *huma.ErrorDetail) *huma.ErrorModel {
	return Problem(http.StatusBadRequest, TypeMalformedBody, "Malformed body", summary([]*huma.ErrorDetail{field}), field)
}

// syntaxError says what is wrong with the text and where.
func syntaxError(err error, body []byte, offset int64) string {
	var syntax *json.SyntaxError
	msg := err.Error()
	if errors.As(err, &syntax) {
		msg = strings.TrimPrefix(syntax.Error(), "json: ")
		offset = max(offset, syntax.Offset-1)
	} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		msg, offset = "it ends too early", int64(len(body))
	}
	before := body[:min(offset, int64(len(body)))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf("%s (line %d, column %d)", msg, line, column)
}

// checker walks one body. Its methods consume exactly one value and return only errors of syntax, after which nothing can be
// read; all else is a complaint and the walk goes on.
type checker struct {
	reg   huma.Registry
	dec   *json.Decoder
	path  *huma.PathBuffer
	depth int
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
func (c *checker) value(s *huma.Schema, optional bool) error {
	if s = resolve(c.reg, s); !walkable(s) {
		return c.whole(s)
	}
	tok, err := c.dec.Token()
	if err != nil {
		return err
	}
	switch v := tok.(type) {
	case json.Delim:
		if c.depth++; c.depth > maxDepth {
			return fmt.Errorf("it is nested deeper than %d", maxDepth)
		}
		defer func() { c.depth-- }()
		switch {
		case v == '{' && s.Type == huma.TypeObject:
			return c.object(s)
		case v == '[' && s.Type == huma.TypeArray:
			return c.array(s)
		}
		c.mismatch(s, nil)
		return c.rest()
	case json.Number:
		c.number(s, v)
	case nil:
		if !optional && !s.Nullable {
			c.mismatch(s, nil)
		}
	case string:
		if strings.ContainsRune(v, 0) {
			c.complain(c.path.String(), "expected text without NUL characters", nil)
			return nil
		}
		c.scalar(s, v, v)
	default:
		c.scalar(s, v, v)
	}
	return nil
}

func (c *checker) object(s *huma.Schema) error {
	seen := make([]string, 0, 8)
	for c.dec.More() {
		tok, err := c.dec.Token()
		if err != nil {
			return err
		}
		name, _ := tok.(string) // the decoder lets nothing else stand here
		prop, known := s.Properties[name]
		twice := slices.Contains(seen, name)
		if known && !twice {
			seen = append(seen, name)
			c.path.Push(name)
			err = c.value(prop, !slices.Contains(s.Required, name))
			c.path.Pop()
		} else {
			if location := fmt.Sprint(c.path, ".", clip(name)); twice {
				c.complain(location, "given twice, expected once", nil)
			} else if s.AdditionalProperties != true {
				c.complain(location, "unknown field, expected one of "+strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", "), nil)
			}
			err = c.skip()
		}
		if err != nil {
			return err
		}
	}
	for _, name := range s.Required {
		if prop := s.Properties[name]; !prop.ReadOnly && !slices.Contains(seen, name) {
			c.complain(c.path.With(name), "missing, expected "+describe(resolve(c.reg, prop)), nil)
		}
	}
	_, err := c.dec.Token() // the closing brace
	return err
}

func (c *checker) array(s *huma.Schema) error {
	n := 0
	for ; c.dec.More(); n++ {
		if s.MaxItems != nil && n >= *s.MaxItems {
			if err := c.skip(); err != nil {
				return err
			}
			continue
		}
		c.path.PushIndex(n)
		err := c.value(s.Items, false)
		c.path.Pop()
		if err != nil {
			return err
		}
	}
	if s.MinItems != nil && n < *s.MinItems || s.MaxItems != nil && n > *s.MaxItems {
		c.complain(c.path.String(), fmt.Sprintf("expected %s, got %d", describe(s), n), nil)
	}
	_, err := c.dec.Token() // the closing bracket
	return err
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
	var res huma.ValidateResult
	if huma.Validate(c.reg, s, c.path, huma.ModeWriteToServer, v, &res); len(res.Errors) > 0 {
		c.mismatch(s, shown)
	}
}

// whole checks a value whose schema combines others, or has rules about the value as a whole, entirely by huma's rules.
func (c *checker) whole(s *huma.Schema) error {
	var raw json.RawMessage
	if err := c.dec.Decode(&raw); err != nil {
		return err
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		c.complain(c.path.String(), "expected numbers of at most 64 bits", nil) // its syntax has been read already
		return nil
	}
	var res huma.ValidateResult
	huma.Validate(c.reg, s, c.path, huma.ModeWriteToServer, v, &res)
	for _, err := range res.Errors {
		var detail *huma.ErrorDetail
		if errors.As(err, &detail) {
			c.complain(detail.Location, detail.Message, nil)
		}
	}
	return nil
}

// skip reads over the next value.
func (c *checker) skip() error {
	var raw json.RawMessage
	return c.dec.Decode(&raw)
}

// rest reads over what is left of a list or object that has just been opened.
func (c *checker) rest() error {
	for open := 1; open > 0; {
		tok, err := c.dec.Token()
		if err != nil {
			return err
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			open++
		case json.Delim('}'), json.Delim(']'):
			open--
		}
	}
	return nil
}
