package web

import "encoding/base64"

// Cursor is the nextCursor of a page, made of where the page ended. It means nothing to clients.
func Cursor(end string) string { return base64.RawURLEncoding.EncodeToString([]byte(end)) }

// ParseCursor is where the page ended whose nextCursor a client sends as the query parameter cursor, and first where it
// sends none. The error is the answer to a request whose cursor is none of ours: parse does not take it.
func ParseCursor[T any](cursor string, first T, parse func(string) (T, error)) (T, error) {
	if cursor == "" {
		return first, nil
	}
	end, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil {
		first, err = parse(string(end))
	}
	if err != nil {
		return first, Invalid(Field("query.cursor", "expected the nextCursor of a page", cursor))
	}
	return first, nil
}
