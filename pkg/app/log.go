package app

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// NewLogger returns the logger of one service, which writes to w (os.Stderr in a binary). Two settings shape it:
// LOG_LEVEL (debug, info, warn, error) and LOG_FORMAT (json, text). Every line carries the service's name, and a line
// logged with a context that belongs to a trace carries its trace_id.
func NewLogger(w io.Writer, service string, s *Settings) *slog.Logger {
	level := s.OneOf("LOG_LEVEL", "info", "least severe log lines to write", "debug", "info", "warn", "error")
	format := s.OneOf("LOG_FORMAT", "json", "how log lines are written", "json", "text")

	var opts slog.HandlerOptions
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err == nil { // OneOf has checked it
		opts.Level = least
	}
	var h slog.Handler = slog.NewJSONHandler(w, &opts)
	if format == "text" {
		h = slog.NewTextHandler(w, &opts)
	}
	return slog.New(traceHandler{h}).With("service", service)
}

// traceHandler adds the trace id of the record's context.
type traceHandler struct{ next slog.Handler }

func (h traceHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()))
	}
	return h.next.Handle(ctx, r)
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.next.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.next.WithGroup(name)}
}
