package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

const (
	requestTimeout = 35 * time.Second // longer than a service takes to say that something took too long
	maxAnswer      = 16 << 20         // bytes
	pageSize       = 1000             // facts in one answer, and ids in one question
)

// ServiceError says which service could not be asked. What a check would have found is not known then.
type ServiceError struct {
	Service string // its name
	Err     error
}

func (e *ServiceError) Error() string { return e.Service + ": " + e.Err.Error() }
func (e *ServiceError) Unwrap() error { return e.Err }

// Refusal is a service's answer to what it will not do: the same however often it is asked.
type Refusal struct {
	Status int    `json:"status"`
	Type   string `json:"type"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (r *Refusal) Error() string {
	if r.Detail == "" {
		return r.Title
	}
	return r.Detail
}

// OfType tells whether the problem is of a type, such as [facts.TypeChanged].
func (r *Refusal) OfType(typ string) bool { return r.Type == web.TypePrefix+typ }

// meter counts what a check costs.
type meter struct{ requests, bytes, rows atomic.Int64 }

// Peer is a service as one check asks it. It is safe for concurrent use.
type Peer struct {
	name, url string
	set       string // what its members are called, to know it by
	http      *http.Client
	meter     *meter
}

// NewPeer is a service that is asked with a client.
func NewPeer(s Service, client *http.Client) *Peer { return newPeer(s, client, &meter{}) }

func newPeer(s Service, client *http.Client, m *meter) *Peer {
	return &Peer{name: s.Name, url: strings.TrimRight(s.URL, "/"), set: s.Set, http: client, meter: m}
}

// ask asks all services at once.
func ask[T any](ctx context.Context, peers []*Peer, fn func(context.Context, *Peer) (T, error)) (answers []T, err error) {
	answers = make([]T, len(peers))
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range peers {
		g.Go(func() (err error) {
			answers[i], err = fn(ctx, p)
			return err
		})
	}
	return answers, g.Wait()
}

// newClient connects as often as a check asks at once, and does not wait long for who is not there.
func newClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DialContext = (&net.Dialer{Timeout: 3 * time.Second}).DialContext
	transport.MaxIdleConnsPerHost = 8
	return &http.Client{Transport: transport}
}

// call sends one request and reads the answer into out. Its error is a *Refusal, or a *ServiceError where there was no
// proper answer.
func (p *Peer) call(ctx context.Context, method, path string, in, out any) error {
	var payload []byte
	if in != nil {
		var err error
		if payload, err = json.Marshal(in); err != nil {
			return &ServiceError{p.name, err}
		}
	}
	err := p.send(ctx, method, path, payload, out)
	if _, no := errors.AsType[*Refusal](err); err == nil || no {
		return err
	}
	return &ServiceError{p.name, fmt.Errorf("%s %s: %w", method, path, err)}
}

// patience is how long an answer may take: an audit reads what is new, and a first or full one all that is stored.
func patience(path string) time.Duration {
	if strings.HasPrefix(path, auditPath) {
		return facts.AuditWithin + 5*time.Second
	}
	return requestTimeout
}

func (p *Peer) send(ctx context.Context, method, path string, payload []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience(path))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header["Idempotency-Key"] = nil // not sent: it tells net/http to try again on another connection when one turns out to be closed
	p.meter.requests.Add(1)
	res, err := p.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // its text has the method and the address once more
		}
		return fmt.Errorf("at %s: %w", p.url, err)
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	p.meter.bytes.Add(int64(len(answer)))
	switch {
	case err != nil:
		return err
	case len(answer) > maxAnswer:
		return fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	case res.StatusCode < 300:
		if err := json.Unmarshal(answer, out); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		return nil
	}
	no := &Refusal{Status: res.StatusCode, Title: res.Status}
	_ = json.Unmarshal(answer, no) // what is no problem+json has its status, which is enough
	no.Status = res.StatusCode
	if no.Status >= 500 || no.Status == http.StatusRequestTimeout || no.Status == http.StatusTooManyRequests {
		return fmt.Errorf("%s: %s", res.Status, no.Detail)
	}
	return no
}

// Read asks a question, which a service must not refuse. Its error is a *ServiceError.
func (p *Peer) Read(ctx context.Context, method, path string, in, out any) error {
	err := p.call(ctx, method, path, in, out)
	if no, ok := errors.AsType[*Refusal](err); ok {
		return &ServiceError{p.name, fmt.Errorf("%s %s: %d: %w", method, path, no.Status, no)}
	}
	return err
}

func query(span facts.Span, name string, value int64) string {
	q := url.Values{"from": {span.From.String()}, "to": {span.To.String()}, name: {strconv.FormatInt(value, 10)}}
	return "?" + q.Encode()
}

// digest returns the buckets of a span that are not empty.
func (p *Peer) digest(ctx context.Context, span facts.Span, widthMs int64) ([]facts.Bucket, error) {
	var d facts.Digests
	if err := p.Read(ctx, http.MethodGet, "/facts/digest"+query(span, "widthMs", widthMs), nil, &d); err != nil {
		return nil, err
	}
	if d.Set != p.set { // to compare it, or worse, to repair by it, would do harm
		return nil, &ServiceError{p.name, fmt.Errorf("%s tells what is %q, and not what is %q: is that address another service's?", p.url, d.Set, p.set)}
	}
	for _, b := range d.Buckets {
		p.meter.rows.Add(b.Rows)
	}
	return d.Buckets, nil
}

// list returns all facts of a span, however many pages they are.
func (p *Peer) list(ctx context.Context, span facts.Span) (all []facts.Fact, err error) {
	for {
		var page facts.Facts
		if err := p.Read(ctx, http.MethodGet, "/facts"+query(span, "limit", pageSize), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Facts...)
		switch {
		case page.Next == uuid.Nil:
			return all, nil
		case before(page.Next, span.From) || page.Next == span.From:
			return nil, &ServiceError{p.name, fmt.Errorf("the next page of facts begins at %s, not after %s", page.Next, span.From)}
		}
		span.From = page.Next
	}
}

// first returns when the first thing of a span was made; if there is none, when it ends.
func (p *Peer) first(ctx context.Context, span facts.Span) (time.Time, error) {
	var page facts.Facts
	err := p.Read(ctx, http.MethodGet, "/facts"+query(span, "limit", 1), nil, &page)
	if err != nil || len(page.Facts) == 0 {
		return facts.TimeOf(span.To), err
	}
	return facts.TimeOf(page.Facts[0].ID), nil
}

// get returns what is held of the ids, up to [pageSize].
func (p *Peer) get(ctx context.Context, ids []uuid.UUID) ([]facts.Fact, error) {
	var page facts.Facts
	err := p.Read(ctx, http.MethodPost, "/facts/query", map[string]any{"ids": ids}, &page)
	return page.Facts, err
}

func (p *Peer) flow(ctx context.Context) (f facts.Flow, err error) {
	return f, p.Read(ctx, http.MethodGet, "/facts/flow", nil, &f)
}

const auditPath = "/facts/audit"

// audit has the service audit itself.
func (p *Peer) audit(ctx context.Context, full bool) ([]facts.Breach, error) {
	path := auditPath
	if full {
		path += "?full=true"
	}
	var b facts.Breaches
	err := p.Read(ctx, http.MethodGet, path, nil, &b)
	return b.Breaches, err
}

// Command has a thing's row put right and returns what the service holds then. Its error is a *Refusal, or a
// *ServiceError where there was no proper answer.
func (p *Peer) Command(ctx context.Context, path string, body any) (*facts.Fact, error) {
	var f facts.Fact
	if err := p.call(ctx, http.MethodPost, path, body, &f); err != nil {
		return nil, err
	}
	return &f, nil
}
