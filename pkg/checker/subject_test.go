package checker

import (
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

// A subject is printed so that a terminal shows all of it, on one line and in one column, and typed back it is the
// same.
func TestPrintSubject(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		"ada": "ada", "ada\tUSD": `ada\tUSD`, `ada\tUSD`: `ada\\tUSD`, `""`: `""`, `\"`: `\\"`, "p 1/é": "p 1/é", "a\u202eb\x1b[m": `a\u202eb\x1b[m`,
	} {
		if got := PrintSubject(subject); got != want {
			t.Errorf("%q is printed %s, want %s", subject, got, want)
		}
	}
	if got := ParseSubject(`a\b c\`); got != `a\b c\` {
		t.Errorf("what is nothing that is printed is %q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		subject := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("\\\"\t\ntux0")))).Draw(t, "subject")
		printed := PrintSubject(subject)
		if got := ParseSubject(printed); got != subject {
			t.Errorf("%q is printed %s, which is read as %q", subject, printed, got)
		}
		if strings.ContainsFunc(printed, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is printed %q", subject, printed)
		}
	})
}
