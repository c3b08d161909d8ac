package web_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/web"
)

func TestRefusedBeforeAHandler(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	large := `{"userId":"` + strings.Repeat("u", 2<<20) + `"}`
	for _, tt := range []struct {
		name, method, target, contentType, body string
		status                                  int
		typ, allow                              string
	}{
		{"unknown path", "GET", "/nowhere", "", "", 404, web.TypeNotFound, ""},
		{"wrong method", "DELETE", "/orders", "", "", 405, web.TypeMethodNotAllowed, "GET, HEAD"},
		{"wrong method with id", "GET", "/orders/" + someID, "", "", 405, web.TypeMethodNotAllowed, "POST"},
		{"wrong method of health", "POST", "/healthz", "", "", 405, web.TypeMethodNotAllowed, "GET, HEAD"},
		{"a form", "POST", "/orders/" + someID, "application/x-www-form-urlencoded", "a=b", 415, web.TypeUnsupportedMedia, ""},
		{"other letters", "POST", "/orders/" + someID, "application/json; charset=latin1", goodBody, 415, web.TypeUnsupportedMedia, ""},
		{"no content type at all", "POST", "/orders/" + someID, ";;", goodBody, 415, web.TypeUnsupportedMedia, ""},
		{"too large", "POST", "/orders/" + someID, "", large, 413, web.TypeBodyTooLarge, ""},
		{"NUL in the path", "GET", "/orders/%00", "", "", 400, web.TypeInvalidRequest, ""},
		{"not UTF-8 in the path", "GET", "/orders/%ff", "", "", 400, web.TypeInvalidRequest, ""},
		{"NUL in the query", "GET", "/orders?status=%00", "", "", 400, web.TypeInvalidRequest, ""},
		{"bad escape in the query", "GET", "/orders?status=%zz", "", "", 400, web.TypeInvalidRequest, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := do(t, s, tt.method, tt.target, tt.contentType, tt.body)
			p := readProblem(t, resp)
			if p.Status != tt.status || p.Type != web.TypePrefix+tt.typ {
				t.Errorf("got %d %s (%s), want %d %s", p.Status, p.Type, p.Detail, tt.status, tt.typ)
			}
			if allow := resp.Header.Get("Allow"); allow != tt.allow {
				t.Errorf("Allow is %q, want %q", allow, tt.allow)
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{MaxBody: int64(len(goodBody))})
	for _, known := range []bool{true, false} { // with and without Content-Length
		for extra, want := range []int{http.StatusAccepted, http.StatusRequestEntityTooLarge} {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/orders/"+someID, strings.NewReader(goodBody+strings.Repeat(" ", extra)))
			if !known {
				r.ContentLength = -1
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%d bytes above the limit, length known %v: %d, want %d", extra, known, w.Code, want)
			}
		}
	}
}

// failing registers GET /fail with a handler that ends with fn's error.
func failing(t *testing.T, cfg web.Config, fn func(ctx context.Context) error) server {
	t.Helper()
	s := setup(t, cfg)
	huma.Register(s.API, huma.Operation{OperationID: "fail", Method: http.MethodGet, Path: "/fail"},
		func(ctx context.Context, _ *struct{}) (*struct{}, error) { return nil, fn(ctx) })
	return s
}

func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	secret := errors.New("dial db.internal: password hunter2")
	for _, tt := range []struct {
		name        string
		fn          func(context.Context) error
		status      int
		typ, detail string
		log         string // "" when nothing is to be logged
	}{
		{"a problem", func(context.Context) error {
			return web.Problem(409, "insufficient-balance", "Insufficient balance", "u1 has 5 EUR of 7")
		}, 409, "insufficient-balance", "u1 has 5 EUR of 7", ""},
		{"a wrapped problem", func(context.Context) error {
			return fmt.Errorf("get order: %w", web.NotFound("there is no order %s", "o1"))
		}, 404, web.TypeNotFound, "there is no order o1", ""},
		{"wrong fields", func(context.Context) error {
			return web.Invalid(web.Field("body.items[1].productId", "given twice, expected once", "p1"))
		}, 422, web.TypeInvalidRequest, "body.items[1].productId: given twice, expected once", ""},
		{"one of huma's", func(context.Context) error { return huma.Error403Forbidden("not yours") }, 403, "forbidden", "not yours", ""},
		{"a fault", func(context.Context) error { return secret }, 500, web.TypeInternal, "under trace ", "hunter2"},
		{"a fault of huma's", func(context.Context) error { return huma.Error500InternalServerError("oops", secret) }, 500, web.TypeInternal, "under trace ", "hunter2"},
		{"unavailable", func(context.Context) error { return fmt.Errorf("get: %w", web.Unavailable(secret)) }, 503, web.TypeUnavailable, "try again", "hunter2"},
		{"a panic", func(context.Context) error { panic(secret) }, 500, web.TypeInternal, "under trace ", "errors_test.go"},
		{"too slow", func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("query: %w", ctx.Err())
		}, 503, web.TypeTimeout, "not known", "took too long"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := web.Config{}
			if tt.name == "too slow" {
				cfg.Timeout = time.Millisecond
			}
			s := failing(t, cfg, tt.fn)
			resp := do(t, s, "GET", "/fail", "", "")
			p := readProblem(t, resp)
			if p.Status != tt.status || p.Type != web.TypePrefix+tt.typ || !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("got %d %s %q, want %d %s %q", p.Status, p.Type, p.Detail, tt.status, tt.typ, tt.detail)
			}
			if shown := fmt.Sprint(p); strings.Contains(shown, "hunter2") {
				t.Errorf("the problem shows what failed: %s", shown)
			}
			if tt.log != "" && !strings.Contains(s.log.String(), tt.log) {
				t.Errorf("the log lacks %q:\n%s", tt.log, s.log)
			}
			if tt.log == "" && strings.Contains(s.log.String(), "level=ERROR") {
				t.Errorf("a refusal is logged as an error:\n%s", s.log)
			}
			if tt.typ == web.TypeUnavailable && resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if tt.typ == web.TypeInternal && !strings.Contains(p.Detail, resp.Header.Get("X-Trace-Id")) {
				t.Errorf("detail %q lacks the trace id", p.Detail)
			}
		})
	}
}

// A problem may be a package's variable: answering with it must not change it.
func TestSharedProblemIsNotChanged(t *testing.T) {
	t.Parallel()
	shared := huma.Error403Forbidden("not yours", web.Field("query.a", "b", strings.Repeat("c", 500)))
	before := fmt.Sprintf("%+v", shared)
	s := failing(t, web.Config{}, func(context.Context) error { return shared })
	readProblem(t, do(t, s, "GET", "/fail", "", ""))
	if after := fmt.Sprintf("%+v", shared); after != before {
		t.Errorf("was %s, is %s", before, after)
	}
}

func TestPanicAfterTheAnswerBeganCutsItOff(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	s.Handle("GET /half", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("half an ans"))
		panic("oops")
	}))
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("panicked with %v, want http.ErrAbortHandler", err)
		}
		if !strings.Contains(s.log.String(), "oops") {
			t.Errorf("the log lacks the panic:\n%s", s.log)
		}
	}()
	do(t, s, "GET", "/half", "", "")
}

type resolved struct {
	Cursor string `query:"cursor" maxLength:"10"`
}

func (in *resolved) Resolve(huma.Context) []error {
	if in.Cursor == "bad" {
		return []error{web.Field("query.cursor", "expected the nextCursor of a page", in.Cursor)}
	}
	return nil
}

func TestResolversKeepTheirWords(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	huma.Register(s.API, huma.Operation{OperationID: "resolve", Method: http.MethodGet, Path: "/resolve"},
		func(context.Context, *resolved) (*struct{}, error) { return nil, nil })
	for cursor, want := range map[string]string{
		"bad":                   "expected the nextCursor of a page",
		strings.Repeat("x", 11): "expected text of 1 to 10 characters",
	} {
		p := readProblem(t, do(t, s, "GET", "/resolve?cursor="+cursor, "", ""))
		if len(p.Errors) != 1 || p.Errors[0].Location != "query.cursor" || p.Errors[0].Message != want {
			t.Errorf("%s: got %+v, want %q", cursor, p.Errors, want)
		}
	}
	if resp := do(t, s, "GET", "/resolve?cursor=good", "", ""); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a good one: %d", resp.StatusCode)
	}
}
