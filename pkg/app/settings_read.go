package app

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

const hidden = "***"

// spec says how one kind of setting is parsed, checked, shown and asked for.
type spec[T any] struct {
	parse func(string) (T, error)
	valid func(T) bool        // nil: whatever parses is right
	show  func(string) string // nil: as it is
	want  string              // ends the sentence "NAME is X, want ..."
}

// read is every typed reader: it records the setting and returns the variable's value, or the default if there is none
// or it is wrong. An empty default of a kind that cannot be empty yields the zero value.
func read[T any](s *Settings, name, def, help string, k spec[T]) T {
	show := k.show
	if show == nil {
		show = func(v string) string { return v }
	}
	shown := func(v string) string {
		if v == "" {
			return ""
		}
		return show(v)
	}

	given := s.getenv(name)
	value, text := parseOr(k, given, def)
	if text != given && given != "" {
		s.errs = append(s.errs, fmt.Errorf("%s is %q, want %s", name, shown(given), k.want))
	}
	if !slices.ContainsFunc(s.all, func(one Setting) bool { return one.Name == name }) {
		s.all = append(s.all, Setting{Name: name, Value: shown(text), Default: shown(def), Help: help})
	}
	return value
}

// parseOr parses given, or def when given is empty or wrong, and also returns the text it took. The default is the
// program's own, so it is not held to the limits: a service may default to what a person may not set.
func parseOr[T any](k spec[T], given, def string) (T, string) {
	if given != "" {
		if v, err := k.parse(given); err == nil && (k.valid == nil || k.valid(v)) {
			return v, given
		}
	}
	if def == "" {
		var zero T
		return zero, ""
	}
	v, err := k.parse(def)
	if err != nil {
		panic(fmt.Sprintf("app: default %q is wrong: %v", def, err)) // a slip in the program, found by its first test
	}
	return v, def
}

func splitList(v string) []string {
	var list []string
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func checkAddr(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return err
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err
}

// redactURL hides the password in a URL, also in one that does not parse: what stands between the user's name and the
// last "@", and a password parameter.
func redactURL(v string) string {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok {
		return hidden // it should be a URL and is not one: whatever it is may be a password
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if user, _, ok := strings.Cut(rest[:at], ":"); ok {
			rest = user + ":" + hidden + rest[at:]
		}
	}
	if before, after, ok := strings.Cut(rest, "password="); ok {
		_, more, _ := strings.Cut(after, "&")
		rest = strings.TrimSuffix(before+"password="+hidden+"&"+more, "&")
	}
	return scheme + "://" + rest
}
