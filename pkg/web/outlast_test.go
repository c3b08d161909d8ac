package web_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/converge-dev/converge/pkg/web"
)

func TestPreference(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		lines []string
		value string
		ok    bool
	}{
		"none":                         {},
		"alone":                        {[]string{"wait=5"}, "5", true},
		"in any case":                  {[]string{"WAIT=5"}, "5", true},
		"blanks":                       {[]string{"  wait \t= 5 "}, "5", true},
		"quoted":                       {[]string{`wait="5"`}, "5", true},
		"quoted pair":                  {[]string{`wait="\5"`}, "5", true},
		"without a value":              {[]string{"wait"}, "", true},
		"empty value":                  {[]string{"wait="}, "", true},
		"parameters":                   {[]string{`wait=5; foo="a,b"; bar`}, "5", true},
		"among others":                 {[]string{`respond-async, handling=lenient;x=1 , wait=5,return=minimal`}, "5", true},
		"in another line":              {[]string{"respond-async", "wait=5"}, "5", true},
		"the first counts":             {[]string{"wait=5, wait=6", "wait=7"}, "5", true},
		"the first counts, though odd": {[]string{"wait=(, wait=6"}, "", false},
		"separators in quotes":         {[]string{`foo="a, wait=9; \", wait=8", wait=5`}, "5", true},
		"empty members":                {[]string{",, ;;, wait=5,,"}, "5", true},
		"a quote that does not end":    {[]string{`foo="a, wait=9`, "wait=5"}, "5", true},
		"its own quote does not end":   {[]string{`wait="5`}, "", false},
		"text after the quotes":        {[]string{`wait="5"6`}, "", false},
		"two words":                    {[]string{"wait=5 6"}, "", false},
		"a parameter of another":       {[]string{"foo; wait=5"}, "", false},
		"a longer name":                {[]string{"waiting=5, await=6"}, "", false},
		"nothing":                      {[]string{""}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if value, ok := web.Preference(tt.lines, "wait"); value != tt.value || ok != tt.ok {
				t.Errorf("%q, %t, want %q, %t", value, ok, tt.value, tt.ok)
			}
		})
	}
}

// outlasting registers GET /wait, which waits for release, for its own time to end or for its client to leave, and
// tells what it was.
func outlasting(s server, d time.Duration, release <-chan struct{}) (began, ended <-chan string) {
	begins, ends := make(chan string, 1), make(chan string, 1)
	huma.Register(s.API, huma.Operation{OperationID: "wait", Method: http.MethodGet, Path: "/wait"},
		func(ctx context.Context, _ *struct{}) (*struct{ Body string }, error) {
			longer, cancel := web.Outlast(ctx, d)
			defer cancel()
			begins <- ""
			select {
			case <-release:
				<-ctx.Done() // the usual time is over
				ends <- "released"
			case <-longer.Done():
				ends <- longer.Err().Error()
			}
			return &struct{ Body string }{"done"}, longer.Err()
		})
	return begins, ends
}

// An operation that waits on purpose has the time that it asks for, and its wait is none of the service's slowness.
func TestOutlast(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := setup(t, web.Config{Timeout: 100 * time.Millisecond, ReadTimeout: 50 * time.Millisecond, Registry: registry})
	release := make(chan struct{})
	close(release)
	outlasting(s, time.Minute, release)
	base, _, _ := serving(t, s)
	resp, err := http.Get(base + "/wait")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || strings.TrimSpace(string(body)) != `"done"` {
		t.Errorf("%d %q %v, want what the operation says after the server's time", resp.StatusCode, body, err)
	}
	if sum := observed(t, registry); sum >= 0.1 {
		t.Errorf("the request counts as %v s, want it without its wait", sum)
	}
}

// observed is the sum of the durations that were observed.
func observed(t *testing.T, registry *prometheus.Registry) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "http_request_duration_seconds" {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetHistogram().GetSampleSum()
		}
		return sum
	}
	t.Fatal("no request was observed")
	return 0
}

func TestOutlastEndsWithTheClient(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	began, ended := outlasting(s, time.Hour, nil)
	base, _, _ := serving(t, s)
	conn := dial(t, base, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
	<-began
	conn.Close()
	if got := <-ended; got != context.Canceled.Error() {
		t.Errorf("it ended with %s, want it ended by its client", got)
	}
}

func TestOutlastEndsAfterItsTime(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{})
	_, ended := outlasting(s, time.Millisecond, nil)
	resp := do(t, s, "GET", "/wait", "", "")
	if got := <-ended; got != context.DeadlineExceeded.Error() || resp.StatusCode < 500 {
		t.Errorf("it ended with %s and %d", got, resp.StatusCode)
	}
}

// Events come one by one, past the times that bound other answers, and with what their receivers need.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{Timeout: 50 * time.Millisecond, ReadTimeout: 50 * time.Millisecond})
	next := make(chan struct{})
	huma.Register(s.API, huma.Operation{OperationID: "stream", Method: http.MethodGet, Path: "/stream"},
		func(ctx context.Context, _ *struct{}) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(hc huma.Context) {
				longer, cancel := web.Outlast(hc.Context(), time.Minute)
				defer cancel()
				events, err := web.NewEvents(hc)
				if err != nil {
					return
				}
				_ = events.Send(web.Event{ID: "1", Name: "line", Data: "a\nb"}, web.Event{ID: "2", Name: "line", Data: map[string]int{"n": 2}})
				<-next
				_ = events.Beat()
				<-hc.Context().Done()
				if longer.Err() == nil {
					_ = events.Send(web.Event{ID: "3", Name: "line"})
				}
			}}, nil
		})
	base, _, _ := serving(t, s)
	resp, err := http.Get(base + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if typ, cache := resp.Header.Get("Content-Type"), resp.Header.Get("Cache-Control"); typ != web.EventStream || cache != "no-store" {
		t.Errorf("Content-Type %q, Cache-Control %q", typ, cache)
	}
	in := bufio.NewReader(resp.Body)
	for _, want := range []string{
		"retry: 1000", "", "id: 1", "event: line", `data: "a\nb"`, "", "id: 2", "event: line", `data: {"n":2}`, "",
	} {
		if line, err := in.ReadString('\n'); err != nil || line != want+"\n" {
			t.Fatalf("%q %v, want %q", line, err, want)
		}
	}
	close(next)
	rest, err := io.ReadAll(in)
	if want := ": still here\n\nid: 3\nevent: line\ndata: null\n\n"; err != nil || string(rest) != want {
		t.Errorf("%q %v, want %q", rest, err, want)
	}
}
