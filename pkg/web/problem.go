package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/pg"
)

// TypePrefix starts the type of every problem, as in "urn:problem-type:not-found". Clients tell problems apart by type;
// title and detail are for people.
const TypePrefix = "urn:problem-type:"

// The types of the problems that a server reports by itself; services add their own.
const (
	TypeMalformedBody    = "malformed-body"         // 400: not JSON
	TypeInvalidRequest   = "invalid-request"        // 422 and 400: fields that are wrong, listed in errors
	TypeNotFound         = "not-found"              // 404
	TypeMethodNotAllowed = "method-not-allowed"     // 405
	TypeNotAcceptable    = "not-acceptable"         // 406
	TypeTimeout          = "timeout"                // 408 the body came too slowly, 503 the handler took too long
	TypeBodyTooLarge     = "body-too-large"         // 413
	TypeUnsupportedMedia = "unsupported-media-type" // 415
	TypeInternal         = "internal-error"         // 500: logged, and not explained to the client
	TypeUnavailable      = "unavailable"            // 503: trying again helps
	TypeNotReady         = "not-ready"              // 503: of /readyz, and of everything before the service has started
)

// Problem is an error for the client (RFC 9457), to be returned by an operation's handler. typ is the type's last part,
// such as "insufficient-balance". The fields name what of the request is wrong; see [Field].
func Problem(status int, typ, title, detail string, fields ...*huma.ErrorDetail) *huma.ErrorModel {
	return &huma.ErrorModel{Status: status, Type: TypePrefix + typ, Title: title, Detail: detail, Errors: fields}
}

// Field says what is wrong with one part of a request. location is a path such as "body.items[0].quantity", "path.id"
// or "query.limit"; message says what would be right.
func Field(location, message string, value any) *huma.ErrorDetail {
	return &huma.ErrorDetail{Location: location, Message: message, Value: clip(value)}
}

// NotFound is a 404.
func NotFound(format string, args ...any) *huma.ErrorModel {
	return Problem(http.StatusNotFound, TypeNotFound, "Not found", fmt.Sprintf(format, args...))
}

// Invalid is a 422 that names the wrong fields, for rules that the schema cannot hold.
func Invalid(fields ...*huma.ErrorDetail) *huma.ErrorModel {
	return Problem(http.StatusUnprocessableEntity, TypeInvalidRequest, "Invalid request", summary(fields), fields...)
}

// Unavailable is a 503 that asks to try again: the fault is not in the request. The cause is logged and not shown.
func Unavailable(cause error) error {
	return &unavailable{cause: cause, ErrorModel: *Problem(http.StatusServiceUnavailable, TypeUnavailable,
		"Temporarily unavailable", "the service cannot do this right now; try again")}
}

// Fault is a handler's answer to an error that is no outcome: [Unavailable] if the same request may pass later (see
// [pg.Transient]), and otherwise the error itself, which becomes a 500.
func Fault(ctx context.Context, err error) error {
	if ctx.Err() == nil && pg.Transient(err) {
		return Unavailable(err)
	}
	return err
}

type unavailable struct {
	huma.ErrorModel
	cause error
}

func (u *unavailable) Error() string           { return "unavailable: " + u.cause.Error() }
func (u *unavailable) Unwrap() error           { return u.cause }
func (u *unavailable) GetHeaders() http.Header { return http.Header{"Retry-After": {"1"}} }

// summary is a problem's detail: the first complaint, and how many there are besides.
func summary(fields []*huma.ErrorDetail) string {
	if len(fields) == 0 {
		return "the request is not valid"
	}
	text := fields[0].Message
	if fields[0].Location != "" {
		text = fields[0].Location + ": " + text
	}
	if n := len(fields) - 1; n > 0 {
		text = fmt.Sprintf("%s (and %d more)", text, n)
	}
	return text
}

// clip shortens a value that is shown back to the client.
func clip(value any) any {
	const most = 100 // bytes
	text, ok := value.(string)
	if !ok || len(text) <= most {
		return value
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}

// internalProblem is the 500 of a fault that the log explains.
func internalProblem(traceID string) *huma.ErrorModel {
	return Problem(http.StatusInternalServerError, TypeInternal, "Internal error",
		"the service failed; its log has the reason under trace "+traceID)
}

// writeProblem answers with p outside of an operation.
func writeProblem(w http.ResponseWriter, p *huma.ErrorModel) {
	writeJSON(w, p.Status, "application/problem+json", p)
}

// writeJSON answers with all of v at once: with its length known, a client has the whole answer while the rest of its
// body is still being read.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // what is answered with can be JSON
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(text.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(text.Bytes()) // the client is gone, nobody is left to tell
}
