package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// prepareOperation runs when an operation is registered. It leaves the body's limits and checks to operate, documents
// what these take, and bounds 32-bit parameters, which huma would cut to size silently.
func prepareOperation(api *huma.OpenAPI, op *huma.Operation) {
	if body := bodySchema(op); body != nil {
		op.SkipValidateBody = true
		op.MaxBodyBytes = -1
		documentNull(api.Components.Schemas, body)
	}
	op.BodyReadTimeout = 0 // every request's is bounded
	documentRefusals(op)
	if conditional(op) {
		documentCondition(op)
	}
	for _, p := range op.Parameters {
		if p.Schema == nil {
			continue
		}
		if p.In == "query" && p.Schema.Type == huma.TypeString && p.Schema.MinLength == nil {
			one := 1 // badQuery refuses an empty one
			p.Schema.MinLength = &one
			p.Schema.PrecomputeMessages()
		}
		if p.Schema.Type != huma.TypeInteger || p.Schema.Format != "int32" {
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

// documentNull says of optional fields of a body that they may also be null, as checkBody takes it.
func documentNull(reg huma.Registry, s *huma.Schema) {
	s = resolve(reg, s)
	if s.Items != nil {
		documentNull(reg, s.Items)
	}
	for name, prop := range s.Properties {
		if prop.Ref == "" && prop.Type != "" && len(prop.Enum) == 0 && !slices.Contains(s.Required, name) {
			prop.Nullable = true
		}
		documentNull(reg, prop)
	}
}

// conditional reports whether an operation reads something that has an ETag, so that a client need not be sent what it
// has.
func conditional(op *huma.Operation) bool {
	ok := op.Responses["200"]
	return op.Method == http.MethodGet && ok != nil && ok.Headers["ETag"] != nil
}

func documentCondition(op *huma.Operation) {
	op.Parameters = append(op.Parameters, &huma.Param{
		Name: headerIfNoneMatch, In: "header", Schema: &huma.Schema{Type: huma.TypeString}, Example: `"1"`,
		Description: "the ETags of what the client has, or *: if it is that, the answer is a 304 without a body",
	})
	op.Responses["304"] = &huma.Response{
		Description: "Not modified: the client has it", Headers: map[string]*huma.Param{"ETag": op.Responses["200"].Headers["ETag"]},
	}
}

// documentRefusals adds the problems that operate answers with, where an operation lists its problems one by one.
func documentRefusals(op *huma.Operation) {
	model := op.Responses["500"]
	if model == nil {
		return
	}
	refusals := []int{http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnprocessableEntity}
	if bodySchema(op) != nil {
		refusals = append(refusals, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	for _, status := range refusals {
		if key := strconv.Itoa(status); op.Responses[key] == nil {
			op.Responses[key] = &huma.Response{Description: http.StatusText(status), Content: model.Content}
		}
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
	if problem := notAcceptable(op, r.Header); problem != nil {
		writeProblem(w, problem)
		return
	}
	if problem := badQuery(op, r.URL.RawQuery); problem != nil {
		writeProblem(w, problem)
		return
	}
	oc := &opContext{humaContext: hc, header: r.Header, answer: w.Header()}
	if conditional(op) {
		oc.unless, _ = ParseETags(strings.Join(r.Header.Values(headerIfNoneMatch), ", ")) // badHeaders has let it pass
	}
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

// readJSON reads the whole body, if it is JSON and nothing else.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, *huma.ErrorModel) {
	if given := r.Header.Values("Content-Type"); !isJSON(given) {
		w.Header().Set("Accept", jsonType)
		return nil, unsupported("Content-Type", strings.Join(given, ", "), jsonType)
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

// unmarshal decodes a body that checkBody let pass. What still fails is a Go type whose schema says less than the type
// demands; the message names the field as JSON has it and nothing of Go.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if typeErr, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: a %s does not fit here", typeErr.Field, typeErr.Value)
	}
	return err
}

// opContext is the context of a running operation: its body has been read, that its answer is accepted has been
// checked, and its status can be replaced when the answer is about to be written.
type opContext struct {
	humaContext
	header http.Header // the request's
	answer http.Header
	body   io.Reader // nil: as it came
	status int       // 0: what the operation says
	unless ETags     // of what the client has; it need not be sent again
	bare   bool      // the answer has no body
}

type humaContext huma.Context

func (c *opContext) Unwrap() huma.Context { return c.humaContext }

func (c *opContext) BodyReader() io.Reader {
	if c.body != nil {
		return c.body
	}
	return c.humaContext.BodyReader()
}

// Header leaves out Accept and the Content-Type of a body that was read: huma's choice of a format fails on parameters
// without a value and on capitals, and there is one to choose from. The lines of a list are one text.
func (c *opContext) Header(name string) string {
	switch {
	case name == "Accept", name == "Content-Type" && c.body != nil:
		return ""
	case slices.Contains(listHeaders, name):
		return strings.Join(c.header.Values(name), ", ")
	}
	return c.humaContext.Header(name)
}

// SetStatus begins the answer. huma has set its headers before, so that an ETag which the client has makes it a 304.
func (c *opContext) SetStatus(status int) {
	if c.status != 0 {
		status = c.status
	}
	if tag := c.answer.Get("ETag"); status == http.StatusOK && tag != "" && c.unless.MatchWeak(tag) {
		status, c.bare = http.StatusNotModified, true
		c.answer.Del("Content-Type")
	}
	c.humaContext.SetStatus(status)
}

func (c *opContext) BodyWriter() io.Writer {
	if c.bare {
		return io.Discard
	}
	return c.humaContext.BodyWriter()
}
