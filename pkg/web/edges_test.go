package web_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/converge-dev/converge/pkg/web"
)

// send sends a request whose header has these lines, in pairs of name and value.
func send(t *testing.T, h http.Handler, method, target, body string, lines ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i+1 < len(lines); i += 2 {
		name := textproto.CanonicalMIMEHeaderKey(lines[i])
		r.Header[name] = append(r.Header[name], lines[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// refused checks that the answer is a problem of this status that names the place.
func refused(t *testing.T, what string, resp *http.Response, status int, location string) {
	t.Helper()
	p := readProblem(t, resp)
	if p.Status != status || len(p.Errors) == 0 || p.Errors[0].Location != location || p.Errors[0].Message == "" {
		t.Errorf("%s: %+v; want %d about %s", what, p, status, location)
	}
}

// A body's media type may be written in any way that is legal; of anything else the answer says what would be right.
func TestContentType(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for _, tt := range []struct {
		values []string
		status int
	}{
		{nil, 202},
		{[]string{""}, 202},
		{[]string{"application/json"}, 202},
		{[]string{"Application/JSON"}, 202},
		{[]string{"APPLICATION/JSON;CHARSET=UTF-8"}, 202},
		{[]string{`application/json; charset="utf-8"`}, 202},
		{[]string{`application/json; charset="u\tf-8"`}, 202}, // a quoted t is a t
		{[]string{"application/json ;\tcharset=utf-8 ; "}, 202},
		{[]string{"application/json;;charset=utf-8;"}, 202},
		{[]string{`application/json; profile="a;b,c=\"d\""`}, 202},
		{[]string{"application/vnd.api+json; version=1"}, 202},
		{[]string{"application/json; charset=latin1"}, 415},
		{[]string{"application/json; charset=utf-8; charset=latin1"}, 415},
		{[]string{"application/json; charset"}, 415},
		{[]string{`application/json; charset="utf-8`}, 415},
		{[]string{`application/json; charset="utf-8"x`}, 415},
		{[]string{"application/json, application/json"}, 415},
		{[]string{"application/json", "application/json"}, 415},
		{[]string{"application/json", "text/plain"}, 415},
		{[]string{"application /json"}, 415},
		{[]string{"application/"}, 415},
		{[]string{"json"}, 415},
		{[]string{"*/*"}, 415},
		{[]string{"text/json"}, 415},
		{[]string{"\xff"}, 415},
		{[]string{`"application/json"`}, 415},
	} {
		var lines []string
		for _, v := range tt.values {
			lines = append(lines, "Content-Type", v)
		}
		resp := send(t, s, "POST", "/orders/"+someID, goodBody, lines...)
		if resp.StatusCode != tt.status {
			t.Errorf("%q: %d, want %d", tt.values, resp.StatusCode, tt.status)
			continue
		}
		if tt.status == http.StatusUnsupportedMediaType {
			refused(t, strings.Join(tt.values, ", "), resp, tt.status, "header.Content-Type")
			if accepted := resp.Header.Get("Accept"); accepted != "application/json" {
				t.Errorf("%q: the answer accepts %q", tt.values, accepted)
			}
		}
	}
}

// What a client accepts is looked at before its request has an effect, in any way that it may be written.
func TestAccept(t *testing.T) {
	t.Parallel()
	s, ran := setup(t, web.Config{}), 0
	huma.Register(s.API, huma.Operation{OperationID: "run", Method: http.MethodPost, Path: "/run"},
		func(context.Context, *struct{}) (*struct{ Body item }, error) {
			ran++
			return &struct{ Body item }{}, nil
		})
	for _, tt := range []struct {
		values []string
		status int
	}{
		{nil, 200},
		{[]string{""}, 200},
		{[]string{","}, 200},
		{[]string{"*/*"}, 200},
		{[]string{"application/*"}, 200},
		{[]string{"Application/Json"}, 200},
		{[]string{"application/json;q=0.001"}, 200},
		{[]string{"application/json;"}, 200},
		{[]string{`application/json;profile="a,b;q=0"`}, 200},
		{[]string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, 200}, // an old client's
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, 200},
		{[]string{"text/html", "application/json"}, 200},
		{[]string{"*/*;q=0, application/json"}, 200},
		{[]string{"a;,b, application/json"}, 200},
		{[]string{"a;,b"}, 406},
		{[]string{"text/html"}, 406},
		{[]string{"text/*"}, 406},
		{[]string{"application/xml", "text/plain"}, 406},
		{[]string{"application/json;q=0"}, 406},
		{[]string{"*/*, application/json;q=0.0"}, 406},
		{[]string{"application/*;q=0, */*"}, 406},
		{[]string{"application/json;q=x"}, 406},
		{[]string{"*/json"}, 406},
		{[]string{"\xff"}, 406},
		{[]string{strings.Repeat(";,", 1000)}, 406},
	} {
		var lines []string
		for _, v := range tt.values {
			lines = append(lines, "Accept", v)
		}
		before := ran
		resp := send(t, s, "POST", "/run", "", lines...)
		if resp.StatusCode != tt.status || (ran > before) != (tt.status == 200) {
			t.Errorf("%q: %d, ran %d times; want %d", tt.values, resp.StatusCode, ran-before, tt.status)
			continue
		}
		if tt.status == http.StatusNotAcceptable {
			refused(t, strings.Join(tt.values, ", "), resp, tt.status, "header.Accept")
		}
	}
}

// A query says one thing of each parameter, or the answer names the one of which it does not. None is passed over in
// silence: a filter that does not filter shows everybody's orders.
func TestQueryIsNotGuessed(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for query, location := range map[string]string{
		"status=":                         "query.status",
		"status":                          "query.status",
		"limit=":                          "query.limit",
		"since&limit=1":                   "query.since",
		"%73tatus=":                       "query.status",
		"status=PENDING&status=CONFIRMED": "query.status",
		"status=PENDING&status=PENDING":   "query.status",
		"status=PENDING&%73tatus=PENDING": "query.status",
		"limit=1&limit=":                  "query.limit",
		"Status=PENDING":                  "query.Status",
		"status%20=PENDING":               "query.status ",
		"status[]=PENDING":                "query.status[]",
		"=PENDING":                        "query.",
		"=":                               "query.",
		"x;status=PENDING":                "query.x;status",
		"status=PENDING;limit=1":          "query.status",
		"limit=1?status=PENDING":          "query.limit",
	} {
		refused(t, query, send(t, s, "GET", "/orders?"+query, ""), 422, location)
	}
	for _, query := range []string{"", "&", "&status=PENDING&&limit=2&", "limit=2&%73tatus=CONFIRMED"} {
		if resp := send(t, s, "GET", "/orders?"+query, ""); resp.StatusCode != 200 {
			t.Errorf("%q: %d, want 200", query, resp.StatusCode)
		}
	}
}

// Text that is no text is refused wherever it stands, and never replaced by something else.
func TestTextThatIsNone(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	for target, location := range map[string]string{
		"/orders/%ff":                       "path",
		"/nowhere/%ff":                      "path",
		"/orders/\xff":                      "path",
		"/orders/%ed%a0%80":                 "path", // half of a surrogate pair
		"/orders/%c0%80":                    "path", // NUL, too long
		"/orders?limit=1&since=%ff":         "query.since",
		"/orders?since=%ed%a0%80":           "query.since",
		"/orders?since=%00":                 "query.since",
		"/orders?since=a%2":                 "query.since",
		"/orders?since=\xff":                "query.since",
		"/orders?%ff=1":                     "query",
		"/orders?\xff=1":                    "query",
		"/orders?status=PENDING&stat\x00us": "query",
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		path, query, _ := strings.Cut(target, "?")
		r.URL.Path, r.URL.RawQuery = path, query
		if strings.Contains(path, "%") {
			var err error
			if r.URL, err = r.URL.Parse(path); err != nil {
				t.Fatal(err)
			}
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		refused(t, target, w.Result(), 400, location)
	}

	for name, tt := range map[string]struct {
		text string
		good bool
	}{
		"first half":                 {`\ud800`, false},
		"second half":                {`\udfff`, false},
		"halves in the wrong order":  {`\udc00\ud800`, false},
		"half and a letter":          {`\ud83dx`, false},
		"half and an escape":         {`\ud83d\n`, false},
		"half and an escaped letter": {`\ud83d\u0041`, false},
		"two first halves":           {`\ud83d\ud83d\ude00`, false},
		"capitals":                   {`\uD83D`, false},
		"a pair":                     {`\ud83d\ude00`, true},
		"two pairs":                  {`\ud83d\ude00\uD83D\uDE00`, true},
		"an escaped backslash":       {`\\ud800`, true},
		"the replacement itself":     {`\ufffd`, true},
		"next to them":               {`\ud7ff\ue000`, true},
	} {
		resp := send(t, s, "POST", "/orders/"+someID, strings.Replace(goodBody, "u1", tt.text, 1))
		if tt.good {
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 202 {
				t.Errorf("%s: %d %s", name, resp.StatusCode, body)
			}
			continue
		}
		refused(t, name, resp, 422, "body.userId")
	}
	refused(t, "deep down", send(t, s, "POST", "/orders/"+someID, strings.Replace(goodBody, "p1", `p\ud800`, 1)), 422, "body.items[0].productId")
	if resp := send(t, s, "POST", "/orders/"+someID, strings.Replace(goodBody, `"amount"`, `"a\ud800":1,"amount"`, 1)); resp.StatusCode != 422 {
		t.Errorf("in a field's name: %d", resp.StatusCode)
	}
}

// versioned registers GET and PUT /thing, whose ETag this is. PUT tells what it got as If-Match.
func versioned(t *testing.T, etag string) server {
	t.Helper()
	s := setup(t, web.Config{})
	type output struct {
		ETag string `header:"ETag"`
		Body item
	}
	huma.Register(s.API, huma.Operation{OperationID: "get", Method: http.MethodGet, Path: "/thing"},
		func(context.Context, *struct{}) (*output, error) {
			return &output{ETag: etag, Body: item{ProductID: "p1", Quantity: 1}}, nil
		})
	huma.Register(s.API, huma.Operation{OperationID: "put", Method: http.MethodPut, Path: "/thing"},
		func(_ context.Context, in *struct {
			IfMatch string `header:"If-Match"`
			Key     string `header:"Key"`
		},
		) (*struct{ Body item }, error) {
			return &struct{ Body item }{item{ProductID: in.IfMatch + in.Key}}, nil
		})
	return s
}

// What a client has is not sent again, whatever way it says so.
func TestConditionalGet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		etag   string
		values []string
		status int
	}{
		{`"1"`, nil, 200},
		{`"1"`, []string{`"1"`}, 304},
		{`"1"`, []string{`W/"1"`}, 304},
		{`W/"1"`, []string{`"1"`}, 304},
		{`"1"`, []string{"*"}, 304},
		{`"1"`, []string{`"2"`}, 200},
		{`"1"`, []string{`"2", "1"`}, 304},
		{`"1"`, []string{`,, "2" ,W/"1",`}, 304},
		{`"1"`, []string{`"2"`, `"1"`}, 304},
		{`"1"`, []string{`"1,2"`}, 200},
		{`"1,2"`, []string{`"0","1,2"`}, 304},
		{`"1"`, []string{`""`}, 200},
		{`"1"`, []string{"1"}, 422},
		{`"1"`, []string{""}, 422},
		{`"1"`, []string{","}, 422},
		{`"1"`, []string{`"1`}, 422},
		{`"1"`, []string{`"1""2"`}, 422},
		{`"1"`, []string{`w/"1"`}, 422},
		{`"1"`, []string{`W/ "1"`}, 422},
		{`"1"`, []string{`"1 2"`}, 422},
		{`"1"`, []string{`*, "1"`}, 422},
		{`"1"`, []string{"*", "*"}, 422},
	} {
		s := versioned(t, tt.etag)
		var lines []string
		for _, v := range tt.values {
			lines = append(lines, "If-None-Match", v)
		}
		for _, method := range []string{"GET", "HEAD"} {
			resp := send(t, s, method, "/thing", "", lines...)
			if resp.StatusCode != tt.status {
				t.Errorf("%s %s, If-None-Match %q: %d, want %d", method, tt.etag, tt.values, resp.StatusCode, tt.status)
				continue
			}
			if tt.status == 422 {
				refused(t, strings.Join(tt.values, ", "), resp, 422, "header.If-None-Match")
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			if bare := len(body) == 0 && resp.Header.Get("Content-Type") == ""; resp.Header.Get("ETag") != tt.etag || bare != (tt.status == 304) {
				t.Errorf("%s %s, If-None-Match %q: %v %s", method, tt.etag, tt.values, resp.Header, body)
			}
		}
	}
}

// A list may come in several lines; of what is no list only one line may come.
func TestSeveralLines(t *testing.T) {
	t.Parallel()
	s := versioned(t, `"1"`)
	resp := send(t, s, "PUT", "/thing", "", "If-Match", `"1"`, "If-Match", `"2"`)
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.Contains(string(body), `\"1\", \"2\"`) {
		t.Errorf("two lines of If-Match: %d %s", resp.StatusCode, body)
	}
	refused(t, "two keys", send(t, s, "PUT", "/thing", "", "Key", "a", "Key", "a"), 422, "header.Key")
	refused(t, "no list", send(t, s, "PUT", "/thing", "", "If-Match", "1"), 422, "header.If-Match")
	refused(t, "an empty list", send(t, s, "PUT", "/thing", "", "If-Match", ""), 422, "header.If-Match")
}

func TestETags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header, etag string
		match, weak  bool
	}{
		{`*`, `"1"`, true, true},
		{` "0" , "1" `, `"1"`, true, true},
		{`"a,b"`, `"a,b"`, true, true},
		{`"é"`, `"é"`, true, true},
		{`W/"1"`, `"1"`, false, true},
		{`W/"1"`, `W/"1"`, false, true},
		{`"1"`, `W/"1"`, false, true},
		{`"1"`, `"11"`, false, false},
	} {
		e, ok := web.ParseETags(tt.header)
		if same := func(etag string) bool { return etag == tt.etag }; e.MatchFunc(same) != tt.match && !strings.HasPrefix(tt.etag, "W/") {
			t.Errorf("%s for %s: what is the same matches: %v", tt.header, tt.etag, !tt.match)
		}
		if !ok || e.Match(tt.etag) != tt.match || e.MatchWeak(tt.etag) != tt.weak {
			t.Errorf("%s for %s: %v, matches %v, weakly %v; want %v, %v", tt.header, tt.etag, ok, e.Match(tt.etag), e.MatchWeak(tt.etag), tt.match, tt.weak)
		}
	}
}

// The id of zeros, and the times that Go takes for none or that JSON cannot tell, are no values: a handler would take
// them for nothing given.
func TestValuesThatStandForNone(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	huma.Register(s.API, huma.Operation{OperationID: "since", Method: http.MethodPost, Path: "/since"},
		func(context.Context, *struct {
			Body struct {
				Since time.Time `json:"since"`
			}
		},
		) (*struct{}, error) {
			return nil, nil
		})
	refused(t, "an id of zeros", send(t, s, "POST", "/orders/00000000-0000-0000-0000-000000000000", goodBody), 422, "path.id")
	for at, good := range map[string]bool{
		"0001-01-01T00:00:00Z": false, "0000-01-01T00:00:00Z": false, "1969-12-31T23:59:59Z": false, "9999-12-31T23:59:59-00:01": false, "2026-11-25T00:00:00-24:00": false,
		"1970-01-01T00:00:00Z": true, "9999-12-31T23:59:59.999999999Z": true, "2026-11-25T00:00:00+23:59": true,
	} {
		query, body := send(t, s, "GET", "/orders?since="+url.QueryEscape(at), ""), send(t, s, "POST", "/since", `{"since":"`+at+`"}`)
		if good {
			if query.StatusCode != 200 || body.StatusCode != 204 {
				t.Errorf("%s: %d and %d, want 200 and 204", at, query.StatusCode, body.StatusCode)
			}
			continue
		}
		refused(t, at, query, 422, "query.since")
		refused(t, at, body, 422, "body.since")
	}
}
