package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// prepareOperation runs when an operation is registered. It leaves the body's limits and checks to operate, and bounds
// 32-bit parameters, which huma would cut to size silently.
func prepareOperation(_ *huma.OpenAPI, op *huma.Operation) {
	if bodySchema(op) != nil {
		op.SkipValidateBody = true
		op.MaxBodyBytes = -1
	}
	op.BodyReadTimeout = 0 // every request's is bounded
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

// operate runs before every operation: it reads the body, and checks it where the operation takes one.
func (s *Server) operate(hc huma.Context, next func(huma.Context)) {
	op := hc.Operation()
	r, w := humago.Unwrap(hc)
	if problem := badHeaders(op, r.Header); problem != nil {
		writeProblem(w, problem)
		return
	}
	oc := &opContext{humaContext: hc}
	switch schema := bodySchema(op); {
	case schema != nil:
		body, problem := s.readJSON(w, r)
		if problem == nil {
			problem = checkBody(s.API.OpenAPI().Components.Schemas, schema, op.RequestBody.Required, body)
		}
		if problem != nil {
			writeProblem(w, problem)
			return
		}
		oc.body = bytes.NewReader(body)
	case op.RequestBody == nil && r.ContentLength != 0: // one that nobody asked for
		if _, problem := s.readBody(w, r); problem != nil {
			writeProblem(w, problem)
			return
		}
	}
	next(oc)
}

// badHeaders refuses text in a parameter that PostgreSQL could not store or compare.
func badHeaders(op *huma.Operation, header http.Header) *huma.ErrorModel {
	for _, p := range op.Parameters {
		if p.In != "header" && p.In != "cookie" {
			continue
		}
		name := p.Name
		if p.In == "cookie" {
			name = "Cookie"
		}
		for _, value := range header.Values(name) {
			if !storable(value) {
				return Invalid(Field("header."+name, "expected UTF-8 text without NUL", nil))
			}
		}
	}
	return nil
}

// readJSON reads the whole body, if it is JSON and nothing else.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, *huma.ErrorModel) {
	if given := r.Header.Get("Content-Type"); !isJSON(given) {
		return nil, unsupported("Content-Type", given, "application/json")
	}
	if given := strings.Join(r.Header.Values("Content-Encoding"), ", "); given != "" && !strings.EqualFold(given, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return nil, unsupported("Content-Encoding", given, "identity")
	}
	return s.readBody(w, r)
}

// unsupported is the answer to a body in a form that is not read.
func unsupported(header, given, want string) *huma.ErrorModel {
	given = strings.ToValidUTF8(given, "\uFFFD")
	return Problem(http.StatusUnsupportedMediaType, TypeUnsupportedMedia, "Unsupported media type",
		fmt.Sprintf("the body is %q, send it as %s: %s", clip(given), header, want),
		Field("header."+header, "expected "+want, given))
}

// readBody reads the whole body, if it is not too large.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *huma.ErrorModel) {
	if r.ContentLength > s.cfg.MaxBody {
		return nil, s.tooLarge(w)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, s.cfg.MaxBody+1))
	var netErr net.Error
	switch {
	case errors.As(err, &netErr) && netErr.Timeout():
		detail := fmt.Sprintf("the body did not arrive within %s", s.cfg.ReadTimeout)
		if s.exchanges.stopping() {
			detail = "the body did not arrive before the service stopped"
		}
		return nil, Problem(http.StatusRequestTimeout, TypeTimeout, "Request timeout", detail)
	case err != nil:
		return nil, Problem(http.StatusBadRequest, TypeMalformedBody, "Malformed body", "the body ended early")
	case int64(len(body)) > s.cfg.MaxBody:
		return nil, s.tooLarge(w)
	default:
		return body, nil
	}
}

func (s *Server) tooLarge(w http.ResponseWriter) *huma.ErrorModel {
	w.Header().Set("Connection", "close") // also when just all has arrived
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

// opContext is the context of a running operation: its body has been read, its answer is JSON whatever the client accepts,
// and its status can be replaced when the answer is about to be written.
type opContext struct {
	humaContext
	body   io.Reader // nil: as it came
	status int       // 0: what the operation says
}

type humaContext huma.Context

func (c *opContext) Unwrap() huma.Context { return c.humaContext }

func (c *opContext) BodyReader() io.Reader {
	if c.body != nil {
		return c.body
	}
	return c.humaContext.BodyReader()
}

// Header leaves Accept out: there is one format to choose from, and huma's choice fails on parameters without a value.
func (c *opContext) Header(name string) string {
	if name == "Accept" {
		return ""
	}
	return c.humaContext.Header(name)
}

func (c *opContext) SetStatus(status int) {
	if c.status != 0 {
		status = c.status
	}
	c.humaContext.SetStatus(status)
}
