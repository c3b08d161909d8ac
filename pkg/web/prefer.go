package web

import "strings"

// Preference is the value of a preference in a request's Prefer lines (RFC 7240), "" where it has none; ok tells
// whether it is there. Names have no case, and of one that is given twice the first counts. A request never fails for a
// preference: one that is not written as it should be is left out, and what its value means is for the caller to judge.
func Preference(lines []string, name string) (value string, ok bool) {
	for _, line := range lines {
		for member := range splitQuoted(line, ',') {
			for preference := range splitQuoted(member, ';') {
				token, text, _ := strings.Cut(preference, "=")
				if strings.EqualFold(trimBlanks(token), name) {
					return word(trimBlanks(text))
				}
				break // what follows are its parameters
			}
		}
	}
	return "", false
}

// word reads a token, or a quoted string; nothing is one, too. ok is false for what is neither.
func word(text string) (value string, ok bool) {
	value, ok = text, text == "" || isToken(text)
	if strings.HasPrefix(text, `"`) {
		value, ok = unquoteString(text)
	}
	if !ok {
		return "", false
	}
	return value, true
}
