package web

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// scanner reads JSON whose syntax has been checked, so nothing it expects can be missing. (json.Decoder's tokens took
// half of a request's time: it formats an error at the end of each.)
type scanner struct {
	text []byte
	pos  int
}

func (s *scanner) space() {
	for {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next value.
func (s *scanner) peek() byte {
	s.space()
	return s.text[s.pos]
}

// next steps into a list or object, or over what separates its parts, and reports whether a part follows. When none
// does, it has stepped out.
func (s *scanner) next() bool {
	for {
		switch s.peek() {
		case '}', ']':
			s.pos++
			return false
		case '{', '[', ',':
			s.pos++
			if c := s.peek(); c == '}' || c == ']' {
				continue
			}
			return true
		}
	}
}

// name reads the name of an object's part, up to its value.
func (s *scanner) name() string {
	name := unquote(s.skip())
	s.space()
	s.pos++ // the colon
	return name
}

// skip reads over the next value and returns its text.
func (s *scanner) skip() []byte {
	s.space()
	start := s.pos
	switch s.text[s.pos] {
	case '"':
		s.quoted()
	case '{', '[':
		for depth := 0; ; {
			switch s.text[s.pos] {
			case '"':
				s.quoted()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if s.pos++; depth == 0 {
				break
			}
		}
	default:
		if n := bytes.IndexAny(s.text[s.pos:], " \t\r\n,]}"); n >= 0 {
			s.pos += n
		} else {
			s.pos = len(s.text)
		}
	}
	return s.text[start:s.pos]
}

func (s *scanner) quoted() {
	for s.pos++; s.text[s.pos] != '"'; s.pos++ {
		if s.text[s.pos] == '\\' {
			s.pos++
		}
	}
	s.pos++
}

// unquote returns the text that a JSON string stands for.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	_ = json.Unmarshal(quoted, &text) // its syntax has been checked
	return text
}

// hasLoneSurrogate reports whether JSON text, whose syntax has been checked, escapes one half of a surrogate pair
// without the other. It stands for no character; a decoder would replace it with U+FFFD.
func hasLoneSurrogate(text []byte) bool {
	if bytes.IndexByte(text, '\\') < 0 {
		return false
	}
	high := false // the first half of a pair comes just before
	for i := 0; i < len(text); i++ {
		half := rune(0)
		if text[i] == '\\' {
			if i++; text[i] == 'u' {
				n, _ := strconv.ParseUint(string(text[i+1:i+5]), 16, 32)
				half = rune(n)
				i += 4
			}
		}
		if low := half >= 0xdc00 && half <= 0xdfff; high != low {
			return true
		}
		high = half >= 0xd800 && half <= 0xdbff
	}
	return high
}

// canonical returns the same text for values that are the same.
func canonical(value []byte) string {
	var v any
	_ = json.Unmarshal(value, &v) // its syntax has been checked; a number that is too large has been complained about
	text, _ := json.Marshal(v)    // what came from JSON can be JSON
	return string(text)
}
