package web

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// withTrace puts the request's place in a trace into its context and returns the trace's id: the caller's trace if its
// traceparent header tells one (W3C Trace Context), else a new one. No tracing SDK is needed for that, and one that
// already started a span for this request is left alone.
func withTrace(ctx context.Context, header http.Header) (context.Context, string) {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		return ctx, sc.TraceID().String()
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(header))
	parent := trace.SpanContextFromContext(ctx)
	cfg := trace.SpanContextConfig{
		TraceID: parent.TraceID(), TraceFlags: parent.TraceFlags(), TraceState: parent.TraceState(),
	}
	if !parent.IsValid() {
		cfg.TraceFlags = trace.FlagsSampled // who records further down decides for itself
		binary.BigEndian.PutUint64(cfg.TraceID[:8], rand.Uint64())
		binary.BigEndian.PutUint64(cfg.TraceID[8:], rand.Uint64()|1) // all zero would not be an id
	}
	binary.BigEndian.PutUint64(cfg.SpanID[:], rand.Uint64()|1)
	sc := trace.NewSpanContext(cfg)
	return trace.ContextWithSpanContext(ctx, sc), sc.TraceID().String()
}
