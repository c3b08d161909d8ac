package idempotency_test

import (
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/idempotency"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	const id, long = "8e03978e-40d5-43dd-bc93-6894a57f9324", "expected a key of 1 to 255 characters, got "
	const plain = "expected a key in double quotes, or one without blanks, quotes and commas, all of ASCII; see character "
	for _, tt := range []struct{ header, key, err string }{
		{`"` + id + `"`, id, ""},
		{id, id, ""},
		{" \t" + id + " ", id, ""},
		{`"a b, c"`, "a b, c", ""},
		{`"a\"b\\c"`, `a"b\c`, ""},
		{`"a";p=1`, "a", ""},
		{`a\b;c`, `a\b;c`, ""},
		{strings.Repeat("k", 255), strings.Repeat("k", 255), ""},
		{strings.Repeat("k", 256), "", long + "256"},
		{`"` + strings.Repeat("k", 256) + `"`, "", long + "256"},
		{"", "", long + "0"},
		{`""`, "", long + "0"},
		{`"a`, "", "expected a closing quote after the key"},
		{`"`, "", "expected a closing quote after the key"},
		{`"a\`, "", `expected \" or \\ where the key has a backslash`},
		{`"a\n"`, "", `expected \" or \\ where the key has a backslash`},
		{`"a" "b"`, "", "expected nothing after the key's closing quote"},
		{`"é"`, "", "expected a key of printable ASCII characters; see character 2"},
		{"a b", "", plain + "2"},
		{"a,b", "", plain + "2"},
		{`a"`, "", plain + "2"},
		{"é", "", plain + "1"},
		{"a\x7f", "", plain + "2"},
	} {
		key, err := idempotency.ParseKey(tt.header)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if key != tt.key || msg != tt.err {
			t.Errorf("%q: got %q, %q, want %q, %q", tt.header, key, msg, tt.key, tt.err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"a", `"a"`, `"\`, `"a\"b";x`, "", "\x00"} {
		f.Add(seed)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, header string) {
		key, err := idempotency.ParseKey(header)
		if err != nil {
			return
		}
		if len(key) < 1 || len(key) > 255 || strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			t.Errorf("%q gives the key %q", header, key)
		}
		if again, err := idempotency.ParseKey(`"` + quote.Replace(key) + `"`); again != key || err != nil {
			t.Errorf("%q quoted gives %q, %v", key, again, err)
		}
	})
}
