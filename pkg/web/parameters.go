package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// listHeaders are the parameters that are lists: their lines are read as one, with commas in between. Of any other
// header a second line is refused.
var listHeaders = []string{headerIfMatch, headerIfNoneMatch, "Prefer"}

const (
	headerIfMatch     = "If-Match"
	headerIfNoneMatch = "If-None-Match"
)

// badURL says what is wrong with a URL that no handler should see: text that PostgreSQL could not store or compare.
func badURL(u *url.URL) *huma.ErrorModel {
	if !storable(u.Path) {
		return badRequest(Field("path", "expected UTF-8 text without NUL", nil))
	}
	if storable(u.RawQuery) && !strings.ContainsRune(u.RawQuery, '%') {
		return nil
	}
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || !storable(name) {
			return badRequest(Field("query", "expected names that are percent-encoded UTF-8 text without NUL", nil))
		}
		if value, err = url.QueryUnescape(value); err != nil || !storable(value) {
			return badRequest(Field(queryPlace(name), "expected percent-encoded UTF-8 text without NUL", nil))
		}
	}
	return nil
}

func badRequest(field *huma.ErrorDetail) *huma.ErrorModel {
	fields := []*huma.ErrorDetail{field}
	return Problem(http.StatusBadRequest, TypeInvalidRequest, "Invalid request", summary(fields), fields...)
}

func storable(text string) bool { return utf8.ValidString(text) && !strings.ContainsRune(text, 0) }

func queryPlace(name string) string {
	short, _ := clip(name).(string)
	return "query." + short
}

// badQuery refuses a query that does not say one thing of each parameter. huma takes a parameter without a value for
// one that is not there, so that an empty filter would let everything through, and reads the first of several.
func badQuery(op *huma.Operation, query string) *huma.ErrorModel {
	if query == "" {
		return nil
	}
	var seen []string
	var found []*huma.ErrorDetail
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" || len(found) == maxComplaints {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, _ = url.QueryUnescape(name) // badURL has let it pass
		value, _ = url.QueryUnescape(value)
		param := findParam(op, "query", name)
		switch {
		case param == nil:
			found = append(found, Field(queryPlace(name), "unknown parameter, "+knownQuery(op), nil))
		case value == "" && param.Required:
			found = append(found, Field(queryPlace(name), "empty, expected "+describe(param.Schema), nil))
		case value == "":
			found = append(found, Field(queryPlace(name), "empty, expected "+describe(param.Schema)+", or no such parameter", nil))
		case param.Schema.Format == "date-time" && tooFar(value):
			found = append(found, Field(queryPlace(name), timeRange, value))
		case slices.Contains(seen, name) && (param.Explode == nil || !*param.Explode):
			found = append(found, Field(queryPlace(name), "given twice, expected once", nil))
		}
		seen = append(seen, name)
	}
	if len(found) == 0 {
		return nil
	}
	return Invalid(found...)
}

// badHeaders refuses a header parameter that PostgreSQL could not store or compare, one in several lines that is no
// list, and conditions that cannot be read.
func badHeaders(op *huma.Operation, header http.Header) *huma.ErrorModel {
	for _, p := range op.Parameters {
		if p.In != "header" && p.In != "cookie" {
			continue
		}
		name := p.Name
		if p.In == "cookie" {
			name = "Cookie"
		}
		values := header.Values(name)
		for _, value := range values {
			if !storable(value) {
				return Invalid(Field("header."+name, "expected UTF-8 text without NUL", nil))
			}
		}
		switch {
		case len(values) == 0 || p.In == "cookie":
		case name == headerIfMatch || name == headerIfNoneMatch:
			if all := strings.Join(values, ", "); !validETags(all) {
				return Invalid(Field("header."+name, `expected *, or ETags in double quotes with commas in between, such as "1"`, all))
			}
		case len(values) > 1 && !slices.Contains(listHeaders, name):
			return Invalid(Field("header."+name, "given twice, expected once", nil))
		}
	}
	return nil
}

func validETags(header string) bool {
	_, ok := ParseETags(header)
	return ok
}
