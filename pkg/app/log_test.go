package app_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/converge-dev/converge/pkg/app"
)

func TestLoggerWritesServiceAndTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := app.NewLogger(&out, "order", app.NewSettings(env(nil)))
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0: 0xab, 15: 0x01}, SpanID: trace.SpanID{1},
	}))

	log.DebugContext(ctx, "not written")
	log.With("order_id", "o1").InfoContext(ctx, "created")
	log.Info("no trace")

	var lines []map[string]any
	for dec := json.NewDecoder(&out); dec.More(); {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
	}
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want 2: %v", len(lines), lines)
	}
	for key, want := range map[string]any{
		"level": "INFO", "msg": "created", "service": "order", "order_id": "o1", "trace_id": "ab000000000000000000000000000001",
	} {
		if lines[0][key] != want {
			t.Errorf("%s is %v, want %v", key, lines[0][key], want)
		}
	}
	if id, ok := lines[1]["trace_id"]; ok {
		t.Errorf("a line without a trace has trace_id %v", id)
	}
}

func TestLoggerSettings(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := app.NewSettings(env(map[string]string{"LOG_LEVEL": "warn", "LOG_FORMAT": "text"}))
	log := app.NewLogger(&out, "order", s)
	log.Info("no")
	log.Log(t.Context(), slog.LevelWarn, "yes")
	if got := out.String(); strings.Contains(got, "msg=no") || !strings.Contains(got, "level=WARN msg=yes service=order") {
		t.Errorf("log is %q", got)
	}

	s = app.NewSettings(env(map[string]string{"LOG_LEVEL": "loud"}))
	app.NewLogger(&out, "order", s)
	if got, want := message(s.Err()), `LOG_LEVEL is "loud", want one of debug, info, warn, error`; got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
}
