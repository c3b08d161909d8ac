package saga

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unicode/utf16"
)

// encoding/json takes what other readers of the same message take otherwise: of a field that occurs twice the last, a
// field in other letter case as the one of the type, half a surrogate pair as U+FFFD. checkFields refuses these three.
// Fields that the type does not have stay allowed: events grow.
//
// A field with the tag `saga:"required"` has to be there, and not null: of one whose zero is a value like any other,
// such as an amount, Validate cannot say that it is missing. Those are returned as missing.
//
// value is valid JSON: json.Unmarshal has taken it.
func checkFields(t reflect.Type, value []byte) (missing, err error) {
	c := fieldCheck{text: value}
	err = c.value(shapeOf(t))
	return c.missing, err
}

// shape is what matters of a type: the fields by name of a struct, and the shape of what lies in it. A nil shape is
// that of a type without structs, or one that reads its JSON itself.
type shape struct {
	fields   map[string]*shape // of a struct
	elem     *shape            // of a list or map
	required []string          // of the fields
}

var shapes sync.Map // reflect.Type → *shape

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := newShape(t, map[reflect.Type]*shape{})
	shapes.Store(t, s)
	return s
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// newShape looks into a type; within holds those it is in the middle of, for types that contain themselves.
func newShape(t reflect.Type, within map[reflect.Type]*shape) *shape {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return nil
	}
	if s, ok := within[t]; ok {
		return s
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		s := &shape{}
		within[t] = s
		s.elem = newShape(t.Elem(), within)
		return s
	case reflect.Struct:
		s := &shape{fields: map[string]*shape{}}
		within[t] = s
		s.add(t, within, map[reflect.Type]bool{t: true})
		return s
	}
	return nil
}

// add takes the fields of a struct, and of those that are embedded in it, each once.
func (s *shape) add(t reflect.Type, within map[reflect.Type]*shape, taken map[reflect.Type]bool) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		switch {
		case f.Tag.Get("json") == "-":
		case f.Anonymous && name == "" && embedded.Kind() == reflect.Struct:
			if !taken[embedded] {
				taken[embedded] = true
				s.add(embedded, within, taken)
			}
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			s.fields[name] = newShape(f.Type, within)
			if f.Tag.Get("saga") == "required" {
				s.required = append(s.required, name)
			}
		}
	}
}

// fieldCheck reads JSON whose syntax has been checked, so nothing it expects can be missing.
type fieldCheck struct {
	text    []byte
	pos     int
	missing error // the first required field that an object lacks
}

func (c *fieldCheck) next() byte {
	for {
		switch b := c.text[c.pos]; b {
		case ' ', '\t', '\r', '\n', ',', ':':
			c.pos++
		default:
			return b
		}
	}
}

func (c *fieldCheck) value(s *shape) error {
	switch c.next() {
	case '"':
		_, err := c.quoted()
		return err
	case '{':
		return c.object(s)
	case '[':
		var elem *shape
		if s != nil {
			elem = s.elem
		}
		for c.pos++; c.next() != ']'; {
			if err := c.value(elem); err != nil {
				return err
			}
		}
		c.pos++
	default: // a number, true, false, null
		for c.pos < len(c.text) && !ends(c.text[c.pos]) {
			c.pos++
		}
	}
	return nil
}

// ends tells whether a number or name is over before b.
func ends(b byte) bool {
	switch b {
	case ' ', '\t', '\r', '\n', ',', ']', '}':
		return true
	}
	return false
}

func (c *fieldCheck) object(s *shape) error {
	var few [16][]byte // names so far, as nearly every object has them: without an allocation
	names := few[:0]
	var many map[string]struct{}
	given := 0 // the bits of those that are required
	for c.pos++; c.next() != '}'; {
		name, err := c.quoted()
		if err != nil {
			return err
		}
		twice := false
		switch {
		case many != nil:
			_, twice = many[string(name)]
			many[string(name)] = struct{}{}
		default:
			for _, n := range names {
				twice = twice || bytes.Equal(n, name)
			}
			if names = append(names, name); len(names) == len(few) {
				many = make(map[string]struct{}, 2*len(few))
				for _, n := range names {
					many[string(n)] = struct{}{}
				}
			}
		}
		if twice {
			return fmt.Errorf("the field %q occurs twice", short(name))
		}
		var inner *shape
		switch {
		case s == nil:
		case s.fields == nil:
			inner = s.elem
		default:
			var known bool
			if inner, known = s.fields[string(name)]; !known {
				if err := s.otherCase(name); err != nil {
					return err
				}
			}
			if at := slices.Index(s.required, string(name)); at >= 0 && c.next() != 'n' { // null
				given |= 1 << at
			}
		}
		if err := c.value(inner); err != nil {
			return err
		}
	}
	c.pos++
	if s != nil && c.missing == nil {
		for at, name := range s.required {
			if given&(1<<at) == 0 {
				c.missing = fmt.Errorf("%s is missing", name)
				break
			}
		}
	}
	return nil
}

// otherCase refuses a name that encoding/json would take for one of the type's.
func (s *shape) otherCase(name []byte) error {
	for want := range s.fields {
		if len(name) <= 3*len(want) && strings.EqualFold(want, string(name)) {
			return fmt.Errorf("the field %q has another letter case than %q", short(name), want)
		}
	}
	return nil
}

func short(name []byte) string { return strings.ToValidUTF8(string(name[:min(len(name), 64)]), "") }

// quoted reads over a string and returns its text, unescaped.
func (c *fieldCheck) quoted() ([]byte, error) {
	c.pos++
	rest := c.text[c.pos:]
	end := bytes.IndexByte(rest, '"')
	escape := bytes.IndexByte(rest[:end], '\\')
	if escape < 0 {
		c.pos += end + 1
		return rest[:end], nil
	}
	for end = escape; rest[end] != '"'; end++ {
		if rest[end] != '\\' {
			continue
		}
		end++
		if rest[end] != 'u' || !utf16.IsSurrogate(hex4(rest[end+1:])) {
			continue
		}
		// The scan has no length to check: a quote follows at least.
		pair := rest[end+5] == '\\' && rest[end+6] == 'u' && utf16.DecodeRune(hex4(rest[end+1:]), hex4(rest[end+7:])) != '\uFFFD'
		if !pair {
			return nil, fmt.Errorf(`\%s is half of a character`, rest[end:end+5])
		}
		end += 10
	}
	var text string
	if err := json.Unmarshal(c.text[c.pos-1:c.pos+end+1], &text); err != nil {
		return nil, err
	}
	c.pos += end + 1
	return []byte(text), nil
}

// hex4 is the number that four hexadecimal digits stand for.
func hex4(digits []byte) (r rune) {
	for _, d := range digits[:4] {
		r <<= 4
		switch {
		case d >= 'a':
			r |= rune(d - 'a' + 10)
		case d >= 'A':
			r |= rune(d - 'A' + 10)
		default:
			r |= rune(d - '0')
		}
	}
	return r
}
