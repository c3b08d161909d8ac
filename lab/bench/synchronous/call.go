package synchronous

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/converge-dev/converge/pkg/web"
)

const (
	attemptTimeout = 4 * time.Second        // of one try of one call
	attempts       = 3                      // but one after a time-out: to ask who is late once more makes it later
	firstBackoff   = 100 * time.Millisecond // doubled from try to try, and up to half more or less at random
)

// remote is another service.
type remote struct {
	name, url string
	http      *http.Client
}

func newRemote(name, url string) remote {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: time.Second}).DialContext
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 256 // the default of two would open a connection for nearly every call
	return remote{name: name, url: strings.TrimSuffix(url, "/"), http: &http.Client{Transport: transport}}
}

// refusal is an outcome: the other service has decided, and says the same however often it is asked.
type refusal struct{ problem problem }

func (r *refusal) Error() string { return r.problem.Detail }

type problem struct {
	Status int    `json:"status"`
	Type   string `json:"type"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

// fault is everything else. Done may be true though nobody has said so: the call was sent, and its answer was lost.
type fault struct {
	service string
	done    bool
	err     error
}

func (f *fault) Error() string { return fmt.Sprintf("call %s: %v", f.service, f.err) }
func (f *fault) Unwrap() error { return f.err }

// call makes an idempotent call, a few times if need be. Its error is a *refusal or a *fault.
func (r remote) call(ctx context.Context, method, path string, body any) error {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return &fault{service: r.name, err: err}
		}
	}
	growing := backoff.NewExponentialBackOff()
	growing.InitialInterval, growing.Multiplier = firstBackoff, 2
	sent := false
	var last error
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		var reached bool
		reached, last = r.attempt(ctx, method, path, payload)
		sent = sent || reached
		if no := (*refusal)(nil); errors.As(last, &no) || errors.Is(last, context.DeadlineExceeded) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(growing), backoff.WithMaxTries(attempts)) // the last attempt tells
	if no := (*refusal)(nil); last == nil || errors.As(last, &no) {
		return last
	}
	return &fault{service: r.name, done: sent, err: last}
}

// attempt makes the call once, and says whether the other service may have got it.
func (r remote) attempt(ctx context.Context, method, path string, payload []byte) (sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, bytes.NewReader(payload))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := r.http.Do(req)
	if err != nil {
		var op *net.OpError
		return !errors.As(err, &op) || op.Op != "dial", err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	switch {
	case err != nil:
		return true, err
	case res.StatusCode < 300:
		return true, nil
	}
	p := problem{Status: res.StatusCode, Title: res.Status}
	_ = json.Unmarshal(answer, &p) // what is no problem+json has its status, which is enough
	if res.StatusCode >= 500 || res.StatusCode == http.StatusRequestTimeout || res.StatusCode == http.StatusTooManyRequests {
		return true, fmt.Errorf("%s: %s", res.Status, p.Detail)
	}
	return true, &refusal{p}
}

// forClient passes a refusal on.
func (r *refusal) forClient() error {
	p := r.problem
	return web.Problem(p.Status, strings.TrimPrefix(p.Type, web.TypePrefix), p.Title, p.Detail)
}
