package idempotency

import (
	"errors"
	"fmt"
	"strings"
)

const maxKey = 255 // characters

// ParseKey reads the value of an Idempotency-Key header: a string of RFC 8941, in double quotes, or, as many clients
// send it, the same without quotes if it has no blanks or commas. Both forms of a key are the same key. An error says
// what would be right. A request with several such headers is for the caller to refuse.
func ParseKey(header string) (string, error) {
	text := strings.Trim(header, " \t")
	key, err := text, error(nil)
	if strings.HasPrefix(text, `"`) {
		key, err = unquote(text)
	} else if i := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ',' }); i >= 0 {
		err = fmt.Errorf("expected a key in double quotes, or one without blanks, quotes and commas, all of ASCII; see character %d", i+1)
	}
	if err != nil {
		return "", err
	}
	if n := len(key); n < 1 || n > maxKey {
		return "", fmt.Errorf("expected a key of 1 to %d characters, got %d", maxKey, n)
	}
	return key, nil
}

// unquote reads a quoted string. Parameters after it are allowed and mean nothing here.
func unquote(text string) (string, error) {
	var key strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			if rest := text[i+1:]; rest != "" && rest[0] != ';' {
				return "", errors.New("expected nothing after the key's closing quote")
			}
			return key.String(), nil
		case c == '\\':
			if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", errors.New(`expected \" or \\ where the key has a backslash`)
			}
			key.WriteByte(text[i])
		case c < ' ' || c > '~':
			return "", fmt.Errorf("expected a key of printable ASCII characters; see character %d", i+1)
		default:
			key.WriteByte(c)
		}
	}
	return "", errors.New("expected a closing quote after the key")
}
