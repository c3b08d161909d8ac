package quiet

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var q Log
		said := func() string {
			text := out.String()
			out.Reset()
			return text
		}

		q.Over(t.Context(), log, "db", "again")
		if got := said(); got != "" {
			t.Errorf("over without a fault: %s", got)
		}
		for range 100 {
			q.Warn(t.Context(), log, "db", "away", "group", "order")
			<-time.After(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(said()), "\n")
		if len(lines) != 4 || strings.Contains(lines[0], "times=") || !strings.Contains(lines[3], "times=91 for=1m30s") || !strings.Contains(lines[3], "group=order") {
			t.Errorf("100 faults in 100 s: want the first and three of every half a minute, got %d:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		q.Warn(t.Context(), log, "kafka", "away")
		if got := said(); !strings.Contains(got, "away") {
			t.Errorf("the first of another key: %q", got)
		}
		q.Over(t.Context(), log, "db", "again")
		if got := said(); !strings.Contains(got, "times=100 for=1m40s") {
			t.Errorf("over: %s", got)
		}
		q.Over(t.Context(), log, "db", "again")
		q.Warn(t.Context(), log, "db", "away")
		if got := strings.TrimSpace(said()); strings.Contains(got, "times") || strings.Count(got, "\n") != 0 {
			t.Errorf("the next fault begins anew: %s", got)
		}
	})
}
