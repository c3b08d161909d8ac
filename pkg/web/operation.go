package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// bodyTimeout is how long a client may take to send a body.
const bodyTimeout = 10 * time.Second

// prepareOperation runs when an operation is registered. It leaves the body's limits and checks to operate, and bounds
// 32-bit parameters, which huma would cut to size silently.
func prepareOperation(_ *huma.OpenAPI, op *huma.Operation) {
	if bodySchema(op) != nil {
		op.SkipValidateBody = true
		op.MaxBodyBytes = -1
		op.BodyReadTimeout = 0
	}
	for _, p := range op.Parameters {
		if p.Schema == nil || p.Schema.Type != huma.TypeInteger || p.Schema.Format != "int32" {
			continue
		}
		lo, hi := float64(math.MinInt32), float64(math.MaxInt32)
		if p.Schema.Minimum == nil {
			p.Schema.Minimum = &lo
		}
		if p.Schema.Maximum == nil {
			p.Schema.Maximum = &hi
		}
		p.Schema.PrecomputeMessages()
	}
}

// bodySchema is the schema of an operation's JSON body, nil if it takes none.
func bodySchema(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil {
		return nil
	}
	if media := op.RequestBody.Content["application/json"]; media != nil {
		return media.Schema
	}
	return nil
}

// operate runs before every operation: it bounds its time, and reads and checks its JSON body.
func (s *Server) operate(hc huma.Context, next func(huma.Context)) {
	ctx, cancel := context.WithTimeout(hc.Context(), s.cfg.Timeout)
	defer cancel()
	oc := &opContext{humaContext: hc, ctx: ctx}
	op := hc.Operation()
	if schema := bodySchema(op); schema != nil {
		r, w := humago.Unwrap(hc)
		body, problem := s.readBody(w, r)
		if problem == nil {
			problem = checkBody(s.API.OpenAPI().Components.Schemas, schema, op.RequestBody.Required, body)
		}
		if problem != nil {
			writeProblem(w, problem)
			return
		}
		oc.body = bytes.NewReader(body)
	}
	next(oc)
}

// readBody reads the whole body, if it is JSON and not too large, within bodyTimeout.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *huma.ErrorModel) {
	if given := r.Header.Get("Content-Type"); !isJSON(given) {
		return nil, Problem(http.StatusUnsupportedMediaType, TypeUnsupportedMedia, "Unsupported media type",
			fmt.Sprintf("the body is %q, send it as Content-Type: application/json", clip(given)),
			Field("header.Content-Type", "expected application/json", given))
	}
	if r.ContentLength > s.cfg.MaxBody {
		return nil, s.tooLarge(w)
	}
	// The deadline must not outlive the reading: the connection's own reader would take it for a client that went away. A
	// writer without deadlines is a test's, which has no slow clients.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(io.LimitReader(r.Body, s.cfg.MaxBody+1))
	_ = rc.SetReadDeadline(time.Time{})

	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		w.Header().Set("Connection", "close")
		return nil, Problem(http.StatusRequestTimeout, TypeTimeout, "Request timeout",
			fmt.Sprintf("the body did not arrive within %s", bodyTimeout))
	case err != nil:
		return nil, Problem(http.StatusBadRequest, TypeMalformedBody, "Malformed body", "the body ended early")
	case int64(len(body)) > s.cfg.MaxBody:
		return nil, s.tooLarge(w)
	default:
		return body, nil
	}
}

func (s *Server) tooLarge(w http.ResponseWriter) *huma.ErrorModel {
	w.Header().Set("Connection", "close") // rather than read the rest
	return Problem(http.StatusRequestEntityTooLarge, TypeBodyTooLarge, "Body too large",
		fmt.Sprintf("a body has at most %d bytes", s.cfg.MaxBody))
}

// isJSON reports whether a Content-Type header stands for JSON, as none at all does.
func isJSON(header string) bool {
	if header == "" || header == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(header)
	if err != nil || (media != "application/json" && !strings.HasSuffix(media, "+json")) {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// unmarshal decodes a body that checkBody let pass. What still fails is a Go type whose schema says less than the type
// demands; the message names the field as JSON has it and nothing of Go.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if typeErr, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: a %s does not fit here", typeErr.Field, typeErr.Value)
	}
	return err
}

// opContext is the context of a running operation: its time is bounded, its body has been read, and its status can be
// replaced when the answer is about to be written.
type opContext struct {
	humaContext
	ctx    context.Context
	body   io.Reader // nil: as it came
	status int       // 0: what the operation says
}

type humaContext huma.Context

func (c *opContext) Context() context.Context { return c.ctx }
func (c *opContext) Unwrap() huma.Context     { return c.humaContext }

func (c *opContext) BodyReader() io.Reader {
	if c.body != nil {
		return c.body
	}
	return c.humaContext.BodyReader()
}

func (c *opContext) SetStatus(status int) {
	if c.status != 0 {
		status = c.status
	}
	c.humaContext.SetStatus(status)
}
