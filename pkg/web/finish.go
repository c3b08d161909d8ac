package web

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.opentelemetry.io/otel/trace"
)

// finishError completes every problem before it is written: huma's own get a type and say what would be right, and an
// error that is none of the client's business is logged and replaced.
func (s *Server) finishError(hc huma.Context, _ string, v any) (any, error) {
	switch p := v.(type) {
	case *unavailable:
		s.log.LogAttrs(hc.Context(), slog.LevelWarn, "unavailable", slog.String("operation", hc.Operation().OperationID),
			slog.Any("error", p.cause))
		return &p.ErrorModel, nil
	case *huma.ErrorModel:
		if p.Type != "" {
			return p, nil // a handler's own
		}
		if p.Status >= http.StatusInternalServerError {
			return s.fault(hc, p), nil
		}
		return explain(hc.Operation(), p), nil
	default:
		return v, nil
	}
}

// fault is the answer to an error that is not a problem: the client learns where to look, the log learns what it was.
func (s *Server) fault(hc huma.Context, p *huma.ErrorModel) *huma.ErrorModel {
	ctx := hc.Context()
	reasons := make([]string, 0, len(p.Errors))
	for _, e := range p.Errors {
		reasons = append(reasons, e.Message)
	}
	log := func(level slog.Level, msg string) {
		s.log.LogAttrs(ctx, level, msg, slog.String("operation", hc.Operation().OperationID),
			slog.String("detail", p.Detail), slog.String("error", strings.Join(reasons, "; ")))
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		log(slog.LevelWarn, "request took too long")
		if oc := findContext(hc); oc != nil {
			oc.status = http.StatusServiceUnavailable
		}
		return Problem(http.StatusServiceUnavailable, TypeTimeout, "Timeout",
			"the service took too long; whether the request had an effect is not known")
	case ctx.Err() != nil:
		log(slog.LevelDebug, "client went away")
	default:
		log(slog.LevelError, "request failed")
	}
	return internalProblem(trace.SpanContextFromContext(ctx).TraceID().String())
}

func findContext(hc huma.Context) *opContext {
	for {
		switch c := hc.(type) {
		case *opContext:
			return c
		case interface{ Unwrap() huma.Context }:
			hc = c.Unwrap()
		default:
			return nil
		}
	}
}

// explain is a copy of one of huma's own complaints about a request, in the form that ours have.
func explain(op *huma.Operation, p *huma.ErrorModel) *huma.ErrorModel {
	fields := make([]*huma.ErrorDetail, 0, len(p.Errors))
	for _, e := range p.Errors {
		field := *e
		in, name, _ := strings.Cut(e.Location, ".")
		param := findParam(op, in, name)
		switch {
		case !terse(e.Message): // a resolver's own words
		case param != nil:
			field.Message = "expected " + describe(param.Schema)
			if e.Value == "" {
				field.Message, field.Value = "missing, "+field.Message, nil
			}
		case in == "query":
			field.Message, field.Value = "unknown parameter, "+knownQuery(op), nil
		}
		if e.Location == "body" {
			field.Value = nil // the whole of it
		}
		field.Value = clip(field.Value)
		fields = append(fields, &field)
	}
	if len(fields) == 0 { // huma.Error403Forbidden("not yours") and the like: "forbidden"
		typ := strings.ReplaceAll(strings.ToLower(http.StatusText(p.Status)), " ", "-")
		return Problem(p.Status, typ, p.Title, p.Detail)
	}
	return Problem(p.Status, TypeInvalidRequest, "Invalid request", summary(fields), fields...)
}

// terse reports whether a complaint is one of huma's, which do not say what would be right, or none.
func terse(message string) bool {
	return message == "" || slices.ContainsFunc([]string{
		"invalid ", "required ", "unknown query parameter", "expected number", "expected integer", "expected boolean",
		"expected string", "expected value", "expected length", "expected array", "expected duration",
	}, func(prefix string) bool { return strings.HasPrefix(message, prefix) })
}

func findParam(op *huma.Operation, in, name string) *huma.Param {
	i := slices.IndexFunc(op.Parameters, func(p *huma.Param) bool { return p.In == in && p.Name == name })
	if i < 0 {
		return nil
	}
	return op.Parameters[i]
}

func knownQuery(op *huma.Operation) string {
	var names []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "there are none here"
	}
	return "expected one of " + strings.Join(names, ", ")
}
