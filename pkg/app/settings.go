package app

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Settings reads a process's settings from its environment. Every read names its variable, gives a default and one line
// of help, and returns a usable value at once: a wrong one is replaced by the default and remembered, so that
// [Settings.Err] can report all of them together. A variable that is set to nothing counts as not set, as compose files
// need it.
//
// Settings is not safe for concurrent use: read everything before goroutines start.
type Settings struct {
	getenv func(string) string
	all    []Setting
	errs   []error
}

// Setting is one variable that was read, as [Settings.All] lists it. Value and Default show secrets as "***".
type Setting struct {
	Name, Value, Default, Help string
}

// NewSettings returns settings that are read with getenv: os.Getenv in a binary, a map's lookup in a test.
func NewSettings(getenv func(string) string) *Settings {
	return &Settings{getenv: getenv}
}

// String reads any text.
func (s *Settings) String(name, def, help string) string {
	return read(s, name, def, help, spec[string]{parse: func(v string) (string, error) { return v, nil }})
}

// Secret reads any text, and never shows it.
func (s *Settings) Secret(name, def, help string) string {
	return read(s, name, def, help, spec[string]{
		parse: func(v string) (string, error) { return v, nil },
		show:  func(string) string { return hidden },
	})
}

// Int reads a whole number from least to most, both included.
func (s *Settings) Int(name string, def, least, most int, help string) int {
	return read(s, name, strconv.Itoa(def), help, spec[int]{
		parse: strconv.Atoi,
		valid: func(n int) bool { return least <= n && n <= most },
		want:  fmt.Sprintf("a whole number from %d to %d", least, most),
	})
}

// Float reads a number from least to most, both included.
func (s *Settings) Float(name string, def, least, most float64, help string) float64 {
	return read(s, name, strconv.FormatFloat(def, 'g', -1, 64), help, spec[float64]{
		parse: func(v string) (float64, error) { return strconv.ParseFloat(v, 64) },
		valid: func(x float64) bool { return least <= x && x <= most },
		want:  fmt.Sprintf("a number from %g to %g", least, most),
	})
}

// Duration reads a Go duration such as "250ms" or "1h30m" from least to most, both included.
func (s *Settings) Duration(name string, def, least, most time.Duration, help string) time.Duration {
	return read(s, name, def.String(), help, spec[time.Duration]{
		parse: time.ParseDuration,
		valid: func(d time.Duration) bool { return least <= d && d <= most },
		want:  fmt.Sprintf("a duration from %s to %s, such as 250ms or 1h30m", least, most),
	})
}

// Bool reads true or false (also 1, 0, t, f).
func (s *Settings) Bool(name string, def bool, help string) bool {
	return read(s, name, strconv.FormatBool(def), help, spec[bool]{parse: strconv.ParseBool, want: "true or false"})
}

// OneOf reads one of the choices.
func (s *Settings) OneOf(name, def, help string, choices ...string) string {
	return read(s, name, def, help, spec[string]{
		parse: func(v string) (string, error) { return v, nil },
		valid: func(v string) bool { return slices.Contains(choices, v) },
		want:  "one of " + strings.Join(choices, ", "),
	})
}

// List reads a comma-separated list; blanks around the parts and empty parts are dropped.
func (s *Settings) List(name string, def []string, help string) []string {
	return read(s, name, strings.Join(def, ","), help, spec[[]string]{
		parse: func(v string) ([]string, error) { return splitList(v), nil },
	})
}

// Addr reads an address to listen on or to connect to: "host:port", where port 0 means any free one and an empty host
// all interfaces.
func (s *Settings) Addr(name, def, help string) string {
	return read(s, name, def, help, spec[string]{
		parse: func(v string) (string, error) { return v, checkAddr(v) },
		want:  "host:port, such as 127.0.0.1:8080",
	})
}

// Addrs reads a comma-separated list of "host:port", at least one.
func (s *Settings) Addrs(name string, def []string, help string) []string {
	return read(s, name, strings.Join(def, ","), help, spec[[]string]{
		parse: func(v string) ([]string, error) {
			list := splitList(v)
			for _, addr := range list {
				if err := checkAddr(addr); err != nil {
					return nil, err
				}
			}
			return list, nil
		},
		valid: func(list []string) bool { return len(list) > 0 },
		want:  "host:port, or several with commas between them",
	})
}

// URL reads an absolute URL with one of the schemes, and shows it without its password. An empty default means that
// there is none: the result is empty when the variable is not set.
func (s *Settings) URL(name, def, help string, schemes ...string) string {
	return read(s, name, def, help, spec[string]{
		parse: func(v string) (string, error) {
			u, err := url.Parse(v)
			if err != nil {
				return "", err
			}
			if !slices.Contains(schemes, u.Scheme) || u.Host == "" {
				return "", errors.New("scheme or host")
			}
			return v, nil
		},
		show: redactURL,
		want: "a URL that starts with " + strings.Join(schemes, ":// or ") + "://",
	})
}

// Reject remembers that the value of a variable is wrong for a reason that only its reader knows, such as two settings
// that exclude each other. want says what would be right.
func (s *Settings) Reject(name, want string) {
	got := "not set"
	for _, one := range s.all {
		if one.Name == name && s.getenv(name) != "" {
			got = strconv.Quote(one.Value)
		}
	}
	s.errs = append(s.errs, fmt.Errorf("%s is %s, want %s", name, got, want))
}

// Err is nil when every setting was right, and otherwise names each wrong one, what was given and what would be right.
func (s *Settings) Err() error { return errors.Join(s.errs...) }

// All lists every setting in the order of its first read.
func (s *Settings) All() []Setting { return slices.Clone(s.all) }

// Print writes a table of every setting, its value and what it is for.
func (s *Settings) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, one := range s.all {
		fmt.Fprintf(tw, "%s\t%s\t%s", one.Name, orDash(one.Value), one.Help)
		if one.Value != one.Default {
			fmt.Fprintf(tw, " (default %s)", orDash(one.Default))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

func orDash(v string) string {
	if v == "" {
		return "-"
	}
	return v
}
