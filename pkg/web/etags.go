package web

import (
	"slices"
	"strings"
)

// ETags is what If-Match or If-None-Match says (RFC 9110, section 13.1). The zero value matches nothing.
type ETags struct {
	Any  bool // "*"
	tags []string
}

// ParseETags reads a header of either kind; several lines of it have commas between them. ok is false for what is
// neither "*" nor a list of ETags. A [Server] refuses such a header before the handler of an operation that takes it.
func ParseETags(header string) (e ETags, ok bool) {
	rest := trimBlanks(header)
	if rest == "*" {
		return ETags{Any: true}, true
	}
	for rest != "" {
		if rest[0] == ',' { // an element may be left empty
			rest = trimBlanks(rest[1:])
			continue
		}
		open := strings.IndexByte(rest, '"')
		if open < 0 || rest[:open] != "" && rest[:open] != "W/" {
			return ETags{}, false
		}
		length := strings.IndexByte(rest[open+1:], '"')
		if length < 0 || strings.ContainsFunc(rest[open+1:open+1+length], func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return ETags{}, false
		}
		end := open + length + 2
		e.tags = append(e.tags, rest[:end])
		if rest = trimBlanks(rest[end:]); rest != "" && rest[0] != ',' {
			return ETags{}, false
		}
	}
	return e, len(e.tags) > 0
}

// Match reports whether If-Match lets a resource with this ETag pass. Weak ETags never do: what they stand for may
// differ in its bytes.
func (e ETags) Match(etag string) bool {
	return e.Any || !strings.HasPrefix(etag, "W/") && slices.Contains(e.tags, etag)
}

// MatchFunc is [ETags.Match] for a resource whose ETag says more than what is to be replaced: same reports whether an
// ETag, in its quotes, stands for the same as it is now in that part.
func (e ETags) MatchFunc(same func(etag string) bool) bool {
	return e.Any || slices.ContainsFunc(e.tags, func(tag string) bool { return !strings.HasPrefix(tag, "W/") && same(tag) })
}

// MatchWeak reports whether If-None-Match names a resource with this ETag, weak or not.
func (e ETags) MatchWeak(etag string) bool {
	strong := func(tag string) string { return strings.TrimPrefix(tag, "W/") }
	return e.Any || slices.ContainsFunc(e.tags, func(tag string) bool { return strong(tag) == strong(etag) })
}
