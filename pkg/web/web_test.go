package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/converge-dev/converge/pkg/web"
)

type item struct {
	ProductID string `json:"productId" minLength:"1" maxLength:"64"`
	Quantity  int    `json:"quantity" minimum:"1" maximum:"1000"`
}

type order struct {
	UserID   string  `json:"userId" minLength:"1" maxLength:"64"`
	Items    []item  `json:"items" minItems:"1" maxItems:"3"`
	Amount   int64   `json:"amount" minimum:"1"`
	Currency string  `json:"currency" pattern:"^[A-Z]{3}$" patternDescription:"three capital letters, such as EUR"`
	Coupon   string  `json:"coupon,omitempty" format:"uuid"`
	Gift     *bool   `json:"gift,omitempty"`
	Weight   float64 `json:"weight,omitempty"`
	Small    int32   `json:"small,omitempty"`
	Tags     tags    `json:"tags,omitempty" uniqueItems:"true"`
}

type tags []string

type createInput struct {
	ID   uuid.UUID `path:"id"`
	Body order
}

type createOutput struct {
	Location string `header:"Location"`
	Body     order
}

type listInput struct {
	Status string `query:"status" enum:"PENDING,CONFIRMED"`
	Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Small  int32  `query:"small"`
	Since  string `query:"since" format:"date-time"`
}

// server is a server under test, with what it logged.
type server struct {
	*web.Server
	log *bytes.Buffer
}

func setup(t *testing.T, cfg web.Config) server {
	t.Helper()
	var log bytes.Buffer
	cfg.Service, cfg.Version = "order", "1.2.3"
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := web.New(cfg)
	huma.Register(s.API, huma.Operation{
		OperationID: "create", Method: http.MethodPost, Path: "/orders/{id}", DefaultStatus: http.StatusAccepted,
	}, func(_ context.Context, in *createInput) (*createOutput, error) {
		return &createOutput{Location: "/orders/" + in.ID.String(), Body: in.Body}, nil
	})
	huma.Register(s.API, huma.Operation{OperationID: "list", Method: http.MethodGet, Path: "/orders"},
		func(_ context.Context, in *listInput) (*struct{ Body listInput }, error) {
			return &struct{ Body listInput }{*in}, nil
		})
	return server{s, &log}
}

const (
	someID   = "01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f"
	goodBody = `{"userId":"u1","items":[{"productId":"p1","quantity":2}],"amount":1250,"currency":"EUR"}`
)

func do(t *testing.T, h http.Handler, method, target, contentType, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

type problem struct {
	Type, Title, Detail string
	Status              int
	Errors              []struct {
		Location, Message string
		Value             any
	}
}

// readProblem reads the problem that every error must be.
func readProblem(t *testing.T, resp *http.Response) problem {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("%d has content type %q, want application/problem+json; body %s", resp.StatusCode, ct, body)
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if p.Status != resp.StatusCode {
		t.Errorf("the problem's status is %d, the response's %d", p.Status, resp.StatusCode)
	}
	if !strings.HasPrefix(p.Type, web.TypePrefix) || p.Title == "" || p.Detail == "" {
		t.Errorf("incomplete problem: %s", body)
	}
	for _, leak := range []string{"json:", "Go ", "strconv", "web_test", "web."} {
		if strings.Contains(string(body), leak) {
			t.Errorf("the problem shows %q: %s", leak, body)
		}
	}
	return p
}

func TestGoodRequest(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for _, contentType := range []string{"", "application/json", "application/json; charset=UTF-8", "application/merge-patch+json"} {
		resp := do(t, s, "POST", "/orders/"+someID, contentType, goodBody)
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusAccepted || strings.TrimSpace(string(body)) != goodBody {
			t.Errorf("content type %q: %d %s, want 202 and the order as sent", contentType, resp.StatusCode, body)
		}
		if loc := resp.Header.Get("Location"); loc != "/orders/"+someID {
			t.Errorf("location is %q", loc)
		}
	}
}

func TestAcceptableBodies(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for name, more := range map[string]string{
		"null for an optional field":    `"coupon":null`,
		"null for an optional pointer":  `"gift":null`,
		"fraction where one is allowed": `"weight":1.5e-2`,
		"the largest amount":            `"amount":9223372036854775807`,
		"the smallest 32 bit number":    `"small":-2147483648`,
		"unique tags":                   `"tags":["a","b"]`,
		"blanks":                        " \n\"weight\" :\t1 ",
		"escapes":                       `"\u0063oupon":"01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8\u0066","tags":["\"","\\"]`,
	} {
		body := strings.Replace(goodBody, `"amount":1250`, `"amount":1250,`+more, 1)
		if strings.HasPrefix(more, `"amount"`) {
			body = strings.Replace(goodBody, `"amount":1250`, more, 1)
		}
		resp := do(t, s, "POST", "/orders/"+someID, "", body)
		if resp.StatusCode != http.StatusAccepted {
			got, _ := io.ReadAll(resp.Body)
			t.Errorf("%s: %d %s", name, resp.StatusCode, got)
		}
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	body := func(old, replacement string) string {
		if !strings.Contains(goodBody, old) {
			t.Fatalf("%q is not in the good body", old)
		}
		return strings.Replace(goodBody, old, replacement, 1)
	}
	const wholeNumber = "expected a whole number of at least 1"
	for _, tt := range []struct {
		name, body        string
		status            int
		location, message string // of the first complaint
		value             any
	}{
		{"empty", "", 400, "body", "missing, expected an object", nil},
		{"cut off", goodBody[:20], 400, "body", "expected JSON: unexpected end of JSON input (line 1, column 20)", nil},
		{"not JSON", "{\n  'userId': 1}", 400, "body", "expected JSON: invalid character '\\'' looking for beginning of object key string (line 2, column 3)", nil},
		{"two values", goodBody + "{}", 400, "body", "expected JSON: invalid character '{' after top-level value (line 1, column 89)", nil},
		{"a comma too many", body(`"EUR"`, `"EUR",`), 400, "body", "expected JSON: invalid character '}' looking for beginning of object key string (line 1, column 89)", nil},
		{"not UTF-8", body("u1", "\xff"), 400, "body", "expected UTF-8 text", nil},
		{"null", "null", 422, "body", "expected an object", nil},
		{"a list", "[1]", 422, "body", "expected an object", nil},
		{"unknown field", body(`"amount"`, `"total":1,"amount"`), 422, "body.total", "unknown field, expected one of amount, coupon, currency, gift, items, small, tags, userId, weight", nil},
		{"unknown field deep down", body(`"quantity"`, `"color":{"x":[1]},"quantity"`), 422, "body.items[0].color", "unknown field, expected one of productId, quantity", nil},
		{"other letters", body(`"amount"`, `"AMOUNT":-5,"amount"`), 422, "body.AMOUNT", "unknown field, expected one of amount, coupon, currency, gift, items, small, tags, userId, weight", nil},
		{"repeated field", body(`"amount"`, `"amount":-5,"amount"`), 422, "body.amount", wholeNumber, -5.0},
		{"repeated good field", body(`"amount"`, `"amount":5,"amount"`), 422, "body.amount", "given twice, expected once", nil},
		{"missing", body(`"amount":1250,`, ""), 422, "body.amount", "missing, " + wholeNumber, nil},
		{"missing deep down", body(`,"quantity":2`, ""), 422, "body.items[0].quantity", "missing, expected a whole number from 1 to 1000", nil},
		{"text for a number", body("1250", `"1250"`), 422, "body.amount", wholeNumber, "1250"},
		{"number for text", body(`"u1"`, "7"), 422, "body.userId", "expected text of 1 to 64 characters", 7.0},
		{"object for a number", body("1250", `{"a":[{}]}`), 422, "body.amount", wholeNumber, nil},
		{"null for a required one", body("1250", `null`), 422, "body.amount", wholeNumber, nil},
		{"zero", body(`:2`, `:0`), 422, "body.items[0].quantity", "expected a whole number from 1 to 1000", 0.0},
		{"negative", body(`:2`, `:-1`), 422, "body.items[0].quantity", "expected a whole number from 1 to 1000", -1.0},
		{"huge", body(`:2`, `:1001`), 422, "body.items[0].quantity", "expected a whole number from 1 to 1000", 1001.0},
		{"fraction", body("1250", "1.5"), 422, "body.amount", wholeNumber, "1.5"},
		{"whole fraction", body("1250", "1.0"), 422, "body.amount", wholeNumber, "1.0"},
		{"exponent", body("1250", "1e3"), 422, "body.amount", wholeNumber, "1e3"},
		{"beyond float", body("1250", "1e400"), 422, "body.amount", wholeNumber, "1e400"},
		{"beyond 64 bits", body("1250", "9223372036854775808"), 422, "body.amount", wholeNumber + " that fits in 64 bits", "9223372036854775808"},
		{"beyond 32 bits", body(`"amount"`, `"small":2147483648,"amount"`), 422, "body.small", "expected a whole number that fits in 32 bits", "2147483648"},
		{"float beyond float", body(`"amount"`, `"weight":1e400,"amount"`), 422, "body.weight", "expected a number", "1e400"},
		{"pattern", body("EUR", "eur"), 422, "body.currency", "expected three capital letters, such as EUR", "eur"},
		{"empty text", body("u1", ""), 422, "body.userId", "expected text of 1 to 64 characters", ""},
		{"NUL", body("u1", `u\u0000`), 422, "body.userId", "expected text without NUL characters", nil},
		{"no items", body(`[{"productId":"p1","quantity":2}]`, "[]"), 422, "body.items", "expected a list of 1 to 3 items, got 0", nil},
		{"too many items", body(`{"productId":"p1","quantity":2}`, strings.Repeat(`{"productId":"p1","quantity":2},`, 3)+"9"), 422, "body.items", "expected a list of 1 to 3 items, got 4", nil},
		{"not unique", body(`"amount"`, `"tags":["a","a"],"amount"`), 422, "body.tags[1]", "given twice, expected once", nil},
		{"bad UUID", body(`"amount"`, `"coupon":"x","amount"`), 422, "body.coupon", "expected a UUID, such as 01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := readProblem(t, do(t, s, "POST", "/orders/"+someID, "application/json", tt.body))
			if p.Status != tt.status || len(p.Errors) == 0 {
				t.Fatalf("got %+v, want status %d and the field", p, tt.status)
			}
			if got := p.Errors[0]; got.Location != tt.location || got.Message != tt.message || got.Value != tt.value {
				t.Errorf("got  %s: %s (%v)\nwant %s: %s (%v)", got.Location, got.Message, got.Value, tt.location, tt.message, tt.value)
			}
			if !strings.Contains(p.Detail, tt.location) {
				t.Errorf("detail %q does not name %s", p.Detail, tt.location)
			}
		})
	}
}

func TestEveryComplaintOfARequest(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	p := readProblem(t, do(t, s, "POST", "/orders/"+someID, "", `{"userId":1,"items":[{"quantity":0}],"x":1,"currency":"EUR"}`))
	var got []string
	for _, e := range p.Errors {
		got = append(got, e.Location)
	}
	if want := "body.userId body.items[0].quantity body.items[0].productId body.x body.amount"; strings.Join(got, " ") != want {
		t.Errorf("complaints are about %v, want %s", got, want)
	}
	if !strings.HasSuffix(p.Detail, "(and 4 more)") {
		t.Errorf("detail %q does not count the others", p.Detail)
	}

	many := `{"x` + strings.Repeat("y", 1000) + `":0` + strings.Repeat(`,"z":0`, 1000) + `}`
	if p := readProblem(t, do(t, s, "POST", "/orders/"+someID, "", many)); len(p.Errors) != 20 || len(p.Errors[0].Location) > 200 {
		t.Errorf("%d complaints, the first about %q: want 20 and a short name", len(p.Errors), p.Errors[0].Location)
	}
}

func TestBadParameters(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for _, tt := range []struct {
		target, location, message string
		value                     any
	}{
		{"/orders?limit=ten", "query.limit", "expected a whole number from 1 to 100", "ten"},
		{"/orders?limit=0", "query.limit", "expected a whole number from 1 to 100", 0.0},
		{"/orders?limit=9223372036854775808", "query.limit", "expected a whole number from 1 to 100", "9223372036854775808"},
		{"/orders?small=4294967297", "query.small", "expected a whole number from -2147483648 to 2147483647", 4294967297.0},
		{"/orders?status=DONE", "query.status", "expected one of PENDING, CONFIRMED", "DONE"},
		{"/orders?since=yesterday", "query.since", "expected a time, such as 2026-01-31T23:59:59Z", "yesterday"},
		{"/orders?stauts=PENDING", "query.stauts", "unknown parameter, expected one of status, limit, small, since", nil},
	} {
		p := readProblem(t, do(t, s, "GET", tt.target, "", ""))
		if p.Status != 422 || len(p.Errors) != 1 {
			t.Errorf("%s: got %+v, want 422 and one complaint", tt.target, p)
			continue
		}
		if got := p.Errors[0]; got.Location != tt.location || got.Message != tt.message || got.Value != tt.value {
			t.Errorf("%s:\ngot  %s: %s (%v)\nwant %s: %s (%v)", tt.target, got.Location, got.Message, got.Value, tt.location, tt.message, tt.value)
		}
	}
	p := readProblem(t, do(t, s, "POST", "/orders/42", "", goodBody))
	if p.Status != 422 || len(p.Errors) != 1 || p.Errors[0].Location != "path.id" || !strings.HasPrefix(p.Errors[0].Message, "expected a UUID") {
		t.Errorf("a bad id in the path: %+v", p)
	}
}
