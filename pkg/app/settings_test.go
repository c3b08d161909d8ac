package app_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/app"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

// readers has one of each kind, under the name V.
var readers = map[string]func(*app.Settings) any{
	"string":   func(s *app.Settings) any { return s.String("V", "def", "help") },
	"secret":   func(s *app.Settings) any { return s.Secret("V", "def", "help") },
	"int":      func(s *app.Settings) any { return s.Int("V", 5, 1, 10, "help") },
	"float":    func(s *app.Settings) any { return s.Float("V", 0.5, 0.1, 1, "help") },
	"duration": func(s *app.Settings) any { return s.Duration("V", time.Second, time.Millisecond, time.Minute, "help") },
	"bool":     func(s *app.Settings) any { return s.Bool("V", true, "help") },
	"oneof":    func(s *app.Settings) any { return s.OneOf("V", "a", "help", "a", "b") },
	"list":     func(s *app.Settings) any { return s.List("V", []string{"x"}, "help") },
	"addr":     func(s *app.Settings) any { return s.Addr("V", "127.0.0.1:80", "help") },
	"addrs":    func(s *app.Settings) any { return s.Addrs("V", []string{"127.0.0.1:80"}, "help") },
	"url":      func(s *app.Settings) any { return s.URL("V", "", "help", "postgres", "postgresql") },
}

func TestSettingsRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind, given string
		want        any
		err         string // "" when it is right
	}{
		{"string", "", "def", ""},
		{"string", "x", "x", ""},
		{"secret", "s3cret", "s3cret", ""},
		{"int", "", 5, ""},
		{"int", "10", 10, ""},
		{"int", "11", 5, `V is "11", want a whole number from 1 to 10`},
		{"int", "ten", 5, `V is "ten", want a whole number from 1 to 10`},
		{"int", "99999999999999999999", 5, `V is "99999999999999999999", want a whole number from 1 to 10`},
		{"float", "", 0.5, ""},
		{"float", "1e-1", 0.1, ""},
		{"float", "1.1", 0.5, `V is "1.1", want a number from 0.1 to 1`},
		{"float", "NaN", 0.5, `V is "NaN", want a number from 0.1 to 1`},
		{"float", "half", 0.5, `V is "half", want a number from 0.1 to 1`},
		{"duration", "250ms", 250 * time.Millisecond, ""},
		{"duration", "5", time.Second, `V is "5", want a duration from 1ms to 1m0s, such as 250ms or 1h30m`},
		{"duration", "2m", time.Second, `V is "2m", want a duration from 1ms to 1m0s, such as 250ms or 1h30m`},
		{"bool", "0", false, ""},
		{"bool", "no", true, `V is "no", want true or false`},
		{"oneof", "b", "b", ""},
		{"oneof", "c", "a", `V is "c", want one of a, b`},
		{"list", "", []string{"x"}, ""},
		{"list", " a, ,b,", []string{"a", "b"}, ""},
		{"addr", ":0", ":0", ""},
		{"addr", "[::1]:8080", "[::1]:8080", ""},
		{"addr", "localhost", "127.0.0.1:80", `V is "localhost", want host:port, such as 127.0.0.1:8080`},
		{"addr", "localhost:99999", "127.0.0.1:80", `V is "localhost:99999", want host:port, such as 127.0.0.1:8080`},
		{"addrs", "a:1, b:2", []string{"a:1", "b:2"}, ""},
		{"addrs", "a:1,b", []string{"127.0.0.1:80"}, `V is "a:1,b", want host:port, or several with commas between them`},
		{"addrs", ",", []string{"127.0.0.1:80"}, `V is ",", want host:port, or several with commas between them`},
		{"url", "", "", ""},
		{"url", "postgres://u:pw@h/db", "postgres://u:pw@h/db", ""},
		{"url", "mysql://u:pw@h/db", "", `V is "mysql://u:***@h/db", want a URL that starts with postgres:// or postgresql://`},
		{"url", "postgres://u:p/w@h:x/db", "", `V is "postgres://u:***@h:x/db", want a URL that starts with postgres:// or postgresql://`},
		{"url", "host=h password=pw", "", `V is "***", want a URL that starts with postgres:// or postgresql://`},
	} {
		t.Run(tt.kind+" "+tt.given, func(t *testing.T) {
			t.Parallel()
			s := app.NewSettings(env(map[string]string{"V": tt.given}))
			got := readers[tt.kind](s)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("value (-want +got):\n%s", diff)
			}
			if msg := message(s.Err()); msg != tt.err {
				t.Errorf("error is  %s\nwant error %s", msg, tt.err)
			}
		})
	}
}

func TestSettingsErrNamesEveryWrongSetting(t *testing.T) {
	t.Parallel()
	s := app.NewSettings(env(map[string]string{"A": "x", "B": "y", "C": "3"}))
	s.Int("A", 1, 0, 9, "")
	s.Bool("B", true, "")
	s.Int("C", 1, 0, 9, "")
	s.Reject("C", "less than A")
	s.Reject("D", "the brokers' password as well")
	want := strings.Join([]string{
		`A is "x", want a whole number from 0 to 9`,
		`B is "y", want true or false`,
		`C is "3", want less than A`,
		`D is not set, want the brokers' password as well`,
	}, "\n")
	if got := message(s.Err()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestSettingsPrintListsOnceAndHidesSecrets(t *testing.T) {
	t.Parallel()
	s := app.NewSettings(env(map[string]string{
		"ORDER_DATABASE_URL": "postgres://order:pa:ss@w@db:5432/order?password=again&sslmode=disable",
		"SASL_PASSWORD":      "hunter2",
		"LINGER":             "7ms",
	}))
	s.URL("ORDER_DATABASE_URL", "", "the order database", "postgres")
	s.Secret("SASL_PASSWORD", "", "password of the brokers")
	s.Duration("LINGER", 5*time.Millisecond, 0, time.Second, "how long a batch waits for more")
	s.Duration("LINGER", 5*time.Millisecond, 0, time.Second, "read by a second service of the same process")
	s.List("TAGS", nil, "none here")

	want := []app.Setting{
		{"ORDER_DATABASE_URL", "postgres://order:***@db:5432/order?password=***&sslmode=disable", "", "the order database"},
		{"SASL_PASSWORD", "***", "", "password of the brokers"},
		{"LINGER", "7ms", "5ms", "how long a batch waits for more"},
		{"TAGS", "", "", "none here"},
	}
	if diff := cmp.Diff(want, s.All()); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	var out strings.Builder
	if err := s.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter2", "pa:ss", "ss@w", "again"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("printed settings show %q:\n%s", secret, out.String())
		}
	}
	if line := "LINGER              7ms"; !strings.Contains(out.String(), line) {
		t.Errorf("printed settings lack %q:\n%s", line, out.String())
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
