package system_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// attempt is one request that somebody may send.
type attempt struct {
	op     *operation
	what   string
	url    string
	body   string
	header []string // names and values in turn; a name may come more than once

	refused bool   // it must not be taken
	place   string // what the refusal must be about; "": anything
}

// texts are texts that may be taken or not.
func texts() []string {
	return []string{
		`""`, `" "`, `"\n"`, `"\u0001"`, `"\u007f"`, `"\u0085"`, `"\u00a0"`, `"\u2028"`, `"\u202e"`, `"\ufeff"`, `"\ufffd"`, `"\uffff"`,
		`"e\u0301"`, `"\u00e9"`, `"\u212b"`, `"\uff21\uff22\uff23"`, `"\u0130"`, `"\u03a3\u03c2"`, `"\ud83d\ude00"`, "\"\U0010ffff\"", `"\u0661"`,
		`"."`, `".."`, `"/"`, `"a/b"`, `"%00"`, `"';--"`, `"\\"`, `"\""`, `"*"`, `"null"`, `"-0"`, `"1e3"`, `"NaN"`,
		`"` + strings.Repeat("x", 10_000) + `"`, `"` + strings.Repeat(`\ud83d\ude00`, 1_000) + `"`, `"` + strings.Repeat("e\u0301", 64) + `"`,
	}
}

// noTexts are texts that nothing may take.
func noTexts() []string {
	return []string{`"\ud800"`, `"a\udc00"`, `"\udc00\ud800"`, `"\u0000"`, `"a\u0000b"`, "\"\xff\"", "\"\xed\xa0\x80\"", "\"\xc0\x80\""}
}

// times are times that may be taken or not; noTimes may not.
func times() []string {
	return []string{
		"1970-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-11-25T00:00:00+23:59", "2026-01-01t00:00:00z", "2026-12-31T23:59:60Z", "2026-01-01T00:00:00,5Z",
		"2026-11-25T00:00:00.1234567891Z",
	}
}

func noTimes() []string {
	return []string{
		"0001-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59-00:01", "2026-11-25T00:00:00-24:00", "2026-11-25T00:00:00+24:00", "2026-02-30T00:00:00Z",
		"2026-01-01T24:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01", "292277-01-01T00:00:00Z", "-0001-01-01T00:00:00Z", "now", "1700000000",
	}
}

const nobody = "00000000-0000-0000-0000-000000000000" // what programs send that forgot to set an id

func uuids() []string {
	return []string{
		strings.ToUpper(someID), strings.ReplaceAll(someID, "-", ""), "{" + someID + "}", "urn:uuid:" + someID, someID + "0", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		strings.Replace(someID, "-", "_", 1),
	}
}

func quoted(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = `"` + text + `"`
	}
	return all
}

// numbers are whole numbers that may be taken or not.
func numbers() []string {
	return []string{"0", "-0", "-1", "1", "2147483647", "2147483648", "9007199254740993", "9223372036854775807", "-9223372036854775808"}
}

// wrong lists values that a field of this schema must not take.
func wrong(s *schema) []string {
	all := []string{`[[]]`, `{"a":{}}`}
	switch {
	case s.is("integer"):
		all = append(all, `"1"`, "true", "1.0", "1.5", "1e3", "1E3", "10e-1", "-0.0", "9223372036854775808", "-9223372036854775809", "1e400", "-1e-400", strings.Repeat("9", 1_000))
		if s.Minimum != nil {
			all = append(all, fmt.Sprintf("%.0f", *s.Minimum-1))
		}
		if s.Maximum != nil && *s.Maximum < 1<<53 {
			all = append(all, fmt.Sprintf("%.0f", *s.Maximum+1))
		}
	case s.is("boolean"):
		all = append(all, `"true"`, "0", "1", `""`)
	case s.is("string"):
		all = append(all, "1", "true", "-0", "1e3")
		all = append(all, noTexts()...)
		if s.MaxLength != nil {
			all = append(all, `"`+strings.Repeat("x", *s.MaxLength+1)+`"`)
		}
		if s.MinLength != nil && *s.MinLength > 0 || s.Format != "" || len(s.Enum) > 0 {
			all = append(all, `""`)
		}
		if len(s.Enum) > 0 {
			all = append(all, `"NOBODY"`, fmt.Sprintf(`"%s"`, inOtherLetters(fmt.Sprint(s.Enum[0]))), fmt.Sprintf(`" %s"`, s.Enum[0]))
		}
		if s.Format == "uuid" {
			all = append(all, quoted([]string{someID[1:], "x", nobody})...)
		}
		if s.Format == "date-time" {
			all = append(all, quoted(noTimes())...)
		}
	case s.is("array"):
		all = append(all, `"x"`, "1", "{}")
		if s.MaxItems != nil {
			all = append(all, "["+strings.Repeat("{},", *s.MaxItems)+"{}]")
		}
		if s.MinItems != nil && *s.MinItems > 0 {
			all = append(all, "[]")
		}
	case s.is("object"):
		all = append(all, `"x"`, "1", "[]")
	}
	return all
}

// inOtherLetters is a word in capitals, or one of capitals in small letters.
func inOtherLetters(word string) string {
	if capitals := strings.ToUpper(word); capitals != word {
		return capitals
	}
	return strings.ToLower(word)
}

// odd lists values of the right type, which a field may take or not.
func odd(s *schema) []string {
	switch {
	case s.is("integer"):
		return numbers()
	case s.Format == "date-time":
		return quoted(times())
	case s.Format == "uuid":
		return quoted(uuids())
	case s.is("string"):
		return texts()
	}
	return []string{"null"}
}

// bodies are attempts at an operation's body: each of its fields with each value, left out, repeated, in other letters.
func bodies(op *operation) (all []attempt) {
	root := op.body()
	if root == nil {
		return nil
	}
	add := func(what, body string, refused bool, place string) {
		all = append(all, attempt{op: op, what: what, url: op.url(nil), body: body, refused: refused, place: place})
	}
	for _, body := range []string{
		"", " ", "null", "[]", "1", `"x"`, "{", `{"a"`, "{}{}", "\xff", "\ufeff{}", "{'a':1}", `{"a":1}`, strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 20_000), "NaN",
		"\x1f\x8b\x08\x00", "a=b", "<a/>", `{"\ud800":1}`, `{"":1}`,
	} {
		add(fmt.Sprintf("the body %.40q", body), body, true, "body")
	}
	op.doc.fields(root, "body", func(place string, s *schema, required bool) {
		put := func(what string, refused bool, member func(name string) string) {
			text := op.doc.write(root, edit{place, member})
			about := place
			if !utf8.ValidString(text) || !refused {
				about = "body"
			}
			add(place+" "+what, text, refused, about)
		}
		value := func(v string, refused bool) {
			put(fmt.Sprintf("= %.60q", v), refused, func(name string) string { return `"` + name + `":` + v })
		}
		for _, v := range wrong(s) {
			value(v, true)
		}
		for _, v := range odd(s) {
			if !slices.Contains(wrong(s), v) {
				value(v, false)
			}
		}
		value("null", required && !s.is("null"))
		put("twice", true, func(name string) string { return `"` + name + `":null,"` + name + `":null` })
		if required {
			put("in other letters", true, func(name string) string { return `"` + strings.ToUpper(name[:1]) + name[1:] + `":null,"x":0` })
		}
	})
	return all
}

// parameters are attempts at what stands in an operation's URL.
func parameters(op *operation) (all []attempt) {
	good := ""
	if root := op.body(); root != nil {
		good = op.doc.write(root, edit{})
	}
	add := func(what, target string, refused bool, place string) {
		all = append(all, attempt{op: op, what: what, url: target, body: good, refused: refused, place: place})
	}
	add("an unknown parameter", op.url(nil, "nobody=1"), true, "query.nobody")
	add("an unknown parameter without a value", op.url(nil, "nobody"), true, "query.nobody")
	add("a query that is no text", op.url(nil, "%ff=1"), true, "query")
	add("a query with a bad escape", op.url(nil, "a=%zz"), true, "query.a")
	for _, p := range op.Parameters {
		s := op.doc.resolve(p.Schema)
		place := p.In + "." + p.Name
		var values []string
		switch {
		case p.In == "header":
			continue
		case s.is("integer"):
			for _, v := range []string{"ten", "1.0", "1e3", "9223372036854775808", "0x1", "1_0", "\u0661", "1 ", "--1", "1,2"} {
				values = append(values, "!"+v)
			}
			values = append(values, numbers()...)
			values = append(values, "+5", "007")
		case s.is("boolean"):
			values = []string{"!maybe", "!2", "!yes", "!true,false", "1", "TRUE", "t"}
		case s.Format == "uuid":
			values = append([]string{"!x", "!" + someID[1:], "!" + someID + " "}, uuids()...)
			if place == "query.from" { // of a span: from the first one on
				values = append(values, nobody)
			} else {
				values = append(values, "!"+nobody)
			}
		case s.Format == "date-time":
			values = times()
			for _, v := range noTimes() {
				values = append(values, "!"+v)
			}
		default:
			values = []string{
				" ", "\n", "\x01", "\x7f", "\u0085", "\u00a0", "\u2028", "\u202e", "\ufeff", "\ufffd", "\uffff", "e\u0301", "\u00e9", "\u212b", "\uff21\uff22", "\u0130", "\u03a3\u03c2",
				"\U0001f600", "\U0010ffff", "%", "%00", "a/b", "a\\b", "a;b", "a&b", "a=b", "a+b", "?", "#", "'\"", "*", "null", "NaN", strings.Repeat("x", 10_000), strings.Repeat("e\u0301", 64),
				strings.Repeat("word ", 2_000), "a:b", "user:ada", "user:ada:x", "user::1", "nobody:ada:1", "user:ada:9223372036854775808", ":::", "AAAA", "////",
			}
			if len(s.Enum) > 0 {
				values = append(values, "!NOBODY", "!"+strings.ToLower(fmt.Sprint(s.Enum[0]))+"x", "!"+fmt.Sprint(s.Enum[0])+" ")
			}
			if s.MaxLength != nil {
				values = append(values, "!"+strings.Repeat("x", *s.MaxLength+1))
			}
		}
		for _, v := range values {
			v, refused := strings.CutPrefix(v, "!")
			about := ""
			if refused {
				about = place
			}
			if p.In == "path" {
				add(fmt.Sprintf("%s = %.60q", place, v), op.url(map[string]string{p.Name: url.PathEscape(v)}), refused, about)
			} else {
				add(fmt.Sprintf("%s = %.60q", place, v), op.url(map[string]string{p.Name: ""}, p.Name+"="+url.QueryEscape(v)), refused, about)
			}
		}
		for _, v := range []string{"%ff", "%00", "a%00b", "%ed%a0%80", "%c0%80"} {
			if p.In == "path" {
				add(place+" = "+v, op.url(map[string]string{p.Name: v}), true, "path")
				continue
			}
			add(place+" = "+v, op.url(map[string]string{p.Name: ""}, p.Name+"="+v), true, place)
		}
		if p.In == "query" {
			v := url.QueryEscape(fmt.Sprint(op.doc.example(s)))
			other := map[string]string{p.Name: ""}
			add(place+" empty", op.url(other, p.Name+"="), true, place)
			add(place+" without =", op.url(other, p.Name), true, place)
			add(place+" twice", op.url(other, p.Name+"="+v, p.Name+"="+v), true, place)
			add(place+" twice, once empty", op.url(other, p.Name+"="+v, p.Name+"="), true, place)
			add(place+" in capitals", op.url(nil, strings.ToUpper(p.Name)+"="+v), true, "query."+strings.ToUpper(p.Name))
			if p.Required {
				add(place+" missing", op.url(other), true, place)
			}
		}
	}
	return all
}

// headers are attempts at an operation with good values and odd headers: each header with one of the odd values,
// another at each operation, so that there are more operations than values.
func headers(op *operation, turn int) (all []attempt) {
	good := ""
	if root := op.body(); root != nil {
		good = op.doc.write(root, edit{})
	}
	values := []string{
		"", ",", ";", "=", `"`, `""`, "*", "*/*;,", "a;,b", "a;q", "a;q=,b;q=1", " ; , ; ", "application/xml", "application/json;q=0", "application/json; charset=latin1", "APPLICATION/JSON",
		"\xff", "\u00e9", "gzip", "identity, gzip", "1", `"1`, `"1", "2"`, `W/"1"`, `,"1",`, "00-\xff-", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "wait=5", "wait=x", "wait=-1",
		"respond-async, wait=5", "bytes=0-0", "bytes=9-1", strings.Repeat(";,", 1_000), strings.Repeat("k", 256), strings.Repeat("a/b;c=d,", 500),
	}
	for n, name := range []string{
		"Accept", "Accept-Language", "Accept-Encoding", "Content-Type", "Content-Encoding", "If-Match", "If-None-Match", "If-Modified-Since", "If-Range", "Idempotency-Key", "Traceparent",
		"Tracestate", "Baggage", "Prefer", "Range", "Cookie", "Authorization", "X-Request-Id", "X-Http-Method-Override",
	} {
		v := values[(turn+n)%len(values)]
		header := []string{name, v}
		if turn%4 == n%4 {
			header = append(header, name, `"1"`) // a second line
		}
		all = append(all, attempt{op: op, what: fmt.Sprintf("%.60q", header), url: op.url(nil), body: good, header: header})
	}
	refused := func(place string, lines ...string) {
		all = append(all, attempt{op: op, what: fmt.Sprintf("%.60q", lines), url: op.url(nil), body: good, header: lines, refused: true, place: place})
	}
	refused("header.Accept", "Accept", "text/html")
	refused("header.Accept", "Accept", "text/html", "Accept", "application/json;q=0")
	if good != "" {
		refused("header.Content-Type", "Content-Type", "text/plain")
		refused("header.Content-Type", "Content-Type", "application/json", "Content-Type", "text/plain")
		refused("header.Content-Encoding", "Content-Encoding", "gzip")
	}
	for _, p := range op.Parameters {
		if p.In != "header" {
			continue
		}
		refused("header."+p.Name, p.Name, "\xff")
		switch p.Name {
		case "Prefer": // what cannot be read of it is passed over (RFC 7240)
			continue
		case "If-Match", "If-None-Match", "Idempotency-Key":
			refused("header."+p.Name, p.Name, "")
		}
		refused("header."+p.Name, p.Name, "*", p.Name, "*")
	}
	return all
}
