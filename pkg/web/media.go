package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// media is a media type, or a range of them, as Content-Type and Accept have it (RFC 9110, sections 8.3 and 12.5.1).
type media struct {
	typ    string // such as "application/json", "text/*", in small letters
	params []mediaParam
}

type mediaParam struct{ name, value string } // the name in small letters, the value without quotes

// parseMedia reads one media type. Blanks around semicolons and parameters that are left empty are legal.
func parseMedia(text string) (m media, ok bool) {
	parts := slices.Collect(splitQuoted(text, ';'))
	typ, subtype, _ := strings.Cut(trimBlanks(parts[0]), "/")
	if !isToken(typ) || !isToken(subtype) {
		return media{}, false
	}
	m.typ = strings.ToLower(typ + "/" + subtype)
	for _, part := range parts[1:] {
		part = trimBlanks(part)
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if strings.HasPrefix(value, `"`) {
			if value, ok = unquoteString(value); !ok {
				return media{}, false
			}
		} else if !isToken(value) {
			return media{}, false
		}
		if !isToken(name) {
			return media{}, false
		}
		m.params = append(m.params, mediaParam{strings.ToLower(name), value})
	}
	return m, true
}

// isJSON reports whether the values of Content-Type stand for JSON, as none at all does. Of several it cannot be told
// which is meant.
func isJSON(values []string) bool {
	switch {
	case len(values) == 0:
		return true
	case len(values) > 1:
		return false
	case values[0] == "" || values[0] == jsonType:
		return true
	}
	m, ok := parseMedia(values[0])
	if !ok || m.typ != jsonType && !strings.HasSuffix(m.typ, "+json") {
		return false
	}
	return !slices.ContainsFunc(m.params, func(p mediaParam) bool { return p.name == "charset" && !strings.EqualFold(p.value, "utf-8") })
}

const jsonType = "application/json"

// notAcceptable refuses a request whose Accept takes nothing of what the operation answers with, before it has an
// effect. Nil: one can be had.
func notAcceptable(op *huma.Operation, header http.Header) *huma.ErrorModel {
	values := header.Values("Accept")
	if len(values) == 0 || len(values) == 1 && (values[0] == "*/*" || values[0] == "") {
		return nil
	}
	given := strings.Join(values, ", ")
	offered := answers(op)
	if len(offered) == 0 || slices.ContainsFunc(offered, func(typ string) bool { return accepts(given, typ) }) {
		return nil
	}
	given = strings.ToValidUTF8(given, "\uFFFD")
	want := strings.Join(offered, " or ")
	return Problem(http.StatusNotAcceptable, TypeNotAcceptable, "Not acceptable",
		fmt.Sprintf("the answer is %s, which %q does not accept", want, clip(given)),
		Field("header.Accept", "expected "+want+", or */*", given))
}

// answers lists the media types of an operation's answers that are no problems.
func answers(op *huma.Operation) []string {
	var types []string
	for status, r := range op.Responses {
		if !strings.HasPrefix(status, "2") {
			continue
		}
		for typ := range r.Content {
			if !slices.Contains(types, typ) {
				types = append(types, typ)
			}
		}
	}
	slices.Sort(types)
	return types
}

// accepts reports whether Accept takes a media type: the range that fits it best decides. An element of the list that
// is not legal counts for nothing, except "*", which old clients send. Parameters other than q do not matter: JSON has
// none that change it.
func accepts(accept, typ string) bool {
	major, _, _ := strings.Cut(typ, "/")
	said, best, taken := false, -1, false
	for element := range splitQuoted(accept, ',') {
		if element = trimBlanks(element); element == "" {
			continue
		}
		said = true
		if rest, ok := strings.CutPrefix(element, "*"); ok && !strings.HasPrefix(rest, "/") {
			element = "*/*" + rest
		}
		m, ok := parseMedia(element)
		if !ok {
			continue
		}
		fit := slices.Index([]string{"*/*", major + "/*", typ}, m.typ)
		q, ok := weight(m)
		switch {
		case fit < 0 || !ok:
		case fit > best:
			best, taken = fit, q > 0
		case fit == best:
			taken = taken || q > 0
		}
	}
	return taken || !said
}

// weight is the q of a media range; 1 where it has none.
func weight(m media) (q float64, ok bool) {
	for _, p := range m.params {
		if p.name == "q" {
			q, err := strconv.ParseFloat(p.value, 64)
			return q, err == nil && q >= 0 && q <= 1
		}
	}
	return 1, true
}

// splitQuoted splits a header's text, but not inside of quoted strings.
func splitQuoted(text string, separator byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		quoted, start := false, 0
		for i := 0; i < len(text); i++ {
			switch c := text[i]; {
			case c == '"':
				quoted = !quoted
			case c == '\\' && quoted:
				i++
			case c == separator && !quoted:
				if !yield(text[start:i]) {
					return
				}
				start = i + 1
			}
		}
		yield(text[start:])
	}
}

// unquoteString is the text of a quoted string, which must be all there is.
func unquoteString(quoted string) (string, bool) {
	var text strings.Builder
	for i := 1; i < len(quoted); i++ {
		switch quoted[i] {
		case '"':
			return text.String(), i == len(quoted)-1
		case '\\':
			if i++; i == len(quoted) {
				return "", false
			}
		}
		text.WriteByte(quoted[i])
	}
	return "", false
}

// isToken reports whether text is a token of HTTP's.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

func trimBlanks(text string) string { return strings.Trim(text, " \t") }
