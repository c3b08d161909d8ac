package web

import "strings"

// Preference is the value of a preference in a request's Prefer lines (RFC 7240), "" where it has none; ok tells whether it is
// there. Names have no case, and of one that is given twice the first counts. A request never fails for a preference: one that is
// not written as it should be is left out, and what its value means is for the caller to judge.
func Preference(lines []string, name string) (value string, ok bool) {
	for _, line := range lines {
		for more := true; more; {
			var member string
			member, line, more = cut(line, ',')
			preference, _, _ := cut(member, ';') // without its parameters
			token, text, _ := strings.Cut(preference, "=")
			if strings.EqualFold(strings.Trim(token, " \t"), name) {
				return word(strings.Trim(text, " \t"))
			}
		}
	}
	return "", false
}

// cut is [strings.Cut] for a header's value: a separator in a quoted string is none.
func cut(text string, separator byte) (before, after string, found bool) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case !quoted && c == separator:
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// word reads a token, or a quoted string; ok is false for what is neither.
func word(text string) (value string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
			return "", false
		}
		return text, true
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' && i == len(text)-1:
			return b.String(), true
		case c == '"':
			return "", false
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
