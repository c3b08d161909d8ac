package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/goleak"

	"github.com/converge-dev/converge/pkg/web"
)

// dial opens a connection and sends text on it. Whatever is read from it has 30 s.
func dial(t *testing.T, base, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// answer reads one answer.
func answer(t *testing.T, conn net.Conn) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return resp
}

// closes waits until the server has closed the connection.
func closes(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() {
			t.Error("the connection is still open")
		}
	}
}

// withPlainRoutes adds what services have besides operations with a body.
func withPlainRoutes(t *testing.T, cfg web.Config) server {
	t.Helper()
	s := setup(t, cfg)
	s.Handle("POST /deaf", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Handle("POST /echo", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}))
	huma.Register(s.API, huma.Operation{OperationID: "touch", Method: http.MethodPost, Path: "/touch"},
		func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	return s
}

// routes are one of each kind, with the status of an answer to a body that does not come; 0: none, or any.
var routes = []struct {
	request string
	status  int
}{
	{"POST /orders/" + someID, 408},
	{"POST /touch", 408},
	{"GET /orders", 408},
	{"POST /nowhere", 404},
	{"DELETE /orders", 405},
	{"POST /orders/%00", 400},
	{"GET /healthz", 200},
	{"GET /readyz", 200},
	{"POST /readyz", 405},
	{"GET /metrics", 200},
	{"GET /openapi.json", 200},
	{"POST /deaf", 200},
	{"POST /echo", 0},
}

var framings = map[string]string{"length": "Content-Length: 1000\r\n\r\n{", "chunks": "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"}

// A body that never comes ends within the read timeout, on every path.
func TestABodyThatNeverComes(t *testing.T) {
	t.Parallel()
	s := withPlainRoutes(t, web.Config{ReadTimeout: 300 * time.Millisecond, Grace: 10 * time.Second})
	base, _, _ := serving(t, s)
	for _, route := range routes {
		for framing, body := range framings {
			t.Run(route.request+" "+framing, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				conn := dial(t, base, route.request+" HTTP/1.1\r\nHost: x\r\n"+body)
				if route.status != 0 {
					resp := answer(t, conn)
					if resp.StatusCode != route.status {
						t.Errorf("status %d, want %d", resp.StatusCode, route.status)
					}
					if resp.StatusCode >= 400 {
						readProblem(t, resp)
					}
				}
				closes(t, conn)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		}
	}
}

// A handler's time does not shrink to its client's: the deadline for reading ends with the body.
func TestAHandlerMayTakeLongerThanReading(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{ReadTimeout: 50 * time.Millisecond})
	slow := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-time.After(300 * time.Millisecond):
			w.WriteHeader(http.StatusNoContent)
		}
	}
	s.Handle("/slow", http.HandlerFunc(slow))
	base, _, _ := serving(t, s)
	for _, request := range []string{"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"} {
		conn := dial(t, base, request)
		for range 2 { // and the connection stays good
			if resp := answer(t, conn); resp.StatusCode != http.StatusNoContent || resp.Close {
				t.Errorf("%q: %d, closes %v", request, resp.StatusCode, resp.Close)
			}
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Every handler has a deadline, also one that is no operation.
func TestEveryHandlerHasADeadline(t *testing.T) {
	t.Parallel()
	s := setup(t, web.Config{Timeout: time.Minute})
	s.Handle("GET /plain", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, ok := r.Context().Deadline(); !ok {
			t.Error("a plain handler runs without a deadline")
		}
	}))
	do(t, s, "GET", "/plain", "", "")
}

// 200 clients that send a byte now and then cost the others nothing and do not hold up the stop; nor do clients that do
// not read their answer. Nothing of the stop is an error: no handler runs.
func TestSlowClientsDoNotHoldUpTheStop(t *testing.T) {
	const clients = 200
	s := withPlainRoutes(t, web.Config{ReadTimeout: time.Minute, Grace: 4 * time.Second})
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	reading := make(chan struct{}, 1)
	s.Handle("GET /large", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reading <- struct{}{}
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
	}))
	base, stop, served := serving(t, s)

	dribbling, ended := context.WithCancel(t.Context())
	defer ended()
	dribble := func(conn net.Conn) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-dribbling.Done():
				return
			case <-tick.C:
				if _, err := io.WriteString(conn, "a"); err != nil {
					return
				}
			}
		}
	}
	for i := range clients {
		route := routes[i%len(routes)]
		text := route.request + " HTTP/1.1\r\nHost: x\r\n"
		switch i % 3 {
		case 0:
			text += "X-Slow: " // and the headers go on
		case 1:
			text += "Content-Length: 100000\r\n\r\n{"
		default:
			text = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + text + "X-Slow: " // the second request of its connection
		}
		conn := dial(t, base, text)
		go dribble(conn)
	}
	dial(t, base, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n") // and never reads
	<-reading

	start := time.Now()
	if status, err := get(t, base+"/orders"); err != nil || status != http.StatusOK {
		t.Errorf("another client's request: %d %v", status, err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("another client's request took %s", took)
	}

	start = time.Now()
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve returned %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the stop took %s", took)
	}
	ended()
}

// A client that sends all before it reads gets the answer, not a reset, whatever of its body was not wanted.
func TestTheAnswerReachesWhoSendsAllFirst(t *testing.T) {
	t.Parallel()
	s := withPlainRoutes(t, web.Config{})
	base, _, _ := serving(t, s)
	const size = 6 << 20
	body := strings.Repeat("a", size)
	for request, status := range map[string]int{
		"POST /orders/" + someID: 413, "POST /touch": 413, "POST /nowhere": 404, "DELETE /orders": 405, "GET /healthz": 200, "POST /deaf": 200,
	} {
		for framing, text := range map[string]string{
			"length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body),
			"chunks": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", size, body),
		} {
			t.Run(request+" "+framing, func(t *testing.T) {
				t.Parallel()
				conn := dial(t, base, request+" HTTP/1.1\r\nHost: x\r\n"+text)
				resp := answer(t, conn)
				if resp.StatusCode != status {
					t.Errorf("status %d, want %d", resp.StatusCode, status)
				}
				if status >= 400 {
					readProblem(t, resp)
				}
				closes(t, conn)
			})
		}
	}
}

// A small body that nobody asked for does not cost the connection.
func TestAnOperationWithoutABodyKeepsItsConnection(t *testing.T) {
	t.Parallel()
	s := withPlainRoutes(t, web.Config{})
	base, _, _ := serving(t, s)
	if resp := answer(t, dial(t, base, "POST /touch HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")); resp.Close || resp.StatusCode != http.StatusNoContent {
		t.Errorf("%d, closes %v", resp.StatusCode, resp.Close)
	}
}

// Who asks before sending is not asked to send what is not wanted.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := withPlainRoutes(t, web.Config{})
	base, _, _ := serving(t, s)
	conn := dial(t, base, "POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
	if resp := answer(t, conn); resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %d", resp.StatusCode)
	}
	closes(t, conn)
}
