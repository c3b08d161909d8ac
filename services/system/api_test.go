package system_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/converge-dev/converge/services/system"
	"github.com/converge-dev/converge/testkit/brokertest"
	"github.com/converge-dev/converge/testkit/pgtest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

const (
	patience = 90 * time.Second
	senders  = 8 // requests at a time
)

// api is all services, running, with nobody else who asks them for anything.
type api struct {
	*testing.T
	urls      map[string]string
	databases map[string]string
	client    *http.Client
}

func setup(t *testing.T) *api {
	t.Helper()
	kafka, postgres := brokertest.Fake(t), pgtest.NewServer(t)
	admin, err := pgx.Connect(t.Context(), postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	a := &api{T: t, urls: map[string]string{}, databases: map[string]string{}}
	env := map[string]string{
		"KAFKA_BROKERS": strings.Join(kafka.Brokers(), ","), "LOG_LEVEL": "error", "CHECK_EVERY": "0", "CHECK_ALL_EVERY": "24h", "OPENING_BALANCE": "1000000",
	}
	for _, svc := range system.Services() {
		if _, err := admin.Exec(t.Context(), `CREATE DATABASE `+pgx.Identifier{svc.Name}.Sanitize()); err != nil {
			t.Fatal(err)
		}
		prefix, addr := strings.ToUpper(svc.Name), pgtest.FreeAddr(t)
		a.urls[svc.Name], a.databases[svc.Name] = "http://"+addr, postgres.URL(svc.Name)
		env[prefix+"_ADDR"], env[prefix+"_DATABASE_URL"], env[prefix+"_URL"] = addr, a.databases[svc.Name], a.urls[svc.Name]
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running errgroup.Group
	for _, svc := range system.Services() {
		running.Go(func() error { return svc.Run(ctx, func(name string) string { return env[name] }) })
	}
	transport := &http.Transport{MaxIdleConnsPerHost: senders, DisableCompression: true}
	a.client = &http.Client{Transport: transport, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := running.Wait(); err != nil {
			t.Errorf("a service ended with: %v", err)
		}
	})
	for _, svc := range system.Services() {
		a.eventually(svc.Name+" is ready", func() error {
			return a.get(svc.Name, "/readyz", nil)
		})
	}
	return a
}

func (a *api) eventually(what string, check func() error) {
	a.Helper()
	deadline, tick := time.After(patience), time.NewTicker(20*time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			a.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// get reads what a service answers with into v, unless that is nil.
func (a *api) get(service, path string, v any) error {
	got, err := a.send(service, http.MethodGet, path, "", nil)
	switch {
	case err != nil:
		return err
	case got.status != http.StatusOK:
		return fmt.Errorf("GET %s: %d %s", path, got.status, got.body)
	case v == nil:
		return nil
	}
	return json.Unmarshal(got.body, v)
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a *api) send(service, method, path, body string, header []string) (answer, error) {
	req, err := http.NewRequestWithContext(a.Context(), method, a.urls[service]+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		name := textproto.CanonicalMIMEHeaderKey(header[i])
		req.Header[name] = append(req.Header[name], header[i+1])
	}
	res, err := a.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, text}, err
}

// rows counts the rows of every table of every database, except those that services write to by themselves.
func (a *api) rows() map[string]int64 {
	a.Helper()
	counts := map[string]int64{}
	for service, url := range a.databases {
		db, err := pgx.Connect(a.Context(), url)
		if err != nil {
			a.Fatal(err)
		}
		rows, _ := db.Query(a.Context(), `SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`)
		tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, table := range tables {
			var n int64
			if err == nil {
				err = db.QueryRow(a.Context(), `SELECT count(*) FROM `+pgx.Identifier{table}.Sanitize()).Scan(&n)
			}
			counts[service+"."+table] = n
		}
		if err != nil {
			a.Fatal(err)
		}
		if err := db.Close(a.Context()); err != nil {
			a.Fatal(err)
		}
	}
	return counts
}

// TestWhatPeopleSend sends what no careful client would to every operation of every service. No answer is a 5xx, every
// refusal is a problem that names the place and says what would be right, every status is one that the operation's
// description has, and nothing is stored of what is refused.
func TestWhatPeopleSend(t *testing.T) {
	t.Parallel()
	a := setup(t)
	var all []attempt
	count := 0
	for _, svc := range system.Services() {
		var doc document
		if err := a.get(svc.Name, "/openapi.json", &doc); err != nil {
			t.Fatal(err)
		}
		operations := doc.operations(svc.Name)
		if len(operations) == 0 {
			t.Fatalf("%s has no operations", svc.Name)
		}
		for _, op := range operations {
			all = slices.Concat(all, bodies(op), parameters(op), headers(op, count))
			count++
		}
	}
	before := a.rows()
	a.try(slices.DeleteFunc(slices.Clone(all), func(at attempt) bool { return !at.refused }))
	if after := a.rows(); !maps.Equal(before, after) {
		t.Errorf("refused requests were stored:\nbefore %v\nafter  %v", before, after)
	}
	a.seed()
	a.try(slices.DeleteFunc(slices.Clone(all), func(at attempt) bool { return at.refused }))
	t.Logf("%d requests", len(all))
}

// seed makes what the good values of the descriptions name, so that requests find it.
func (a *api) seed() {
	a.Helper()
	for _, r := range []struct{ service, method, path, body string }{
		{"inventory", "PUT", "/products/sku-1", `{"name":"Teapot","price":1999,"currency":"EUR","stock":1000}`},
		{"profile", "PUT", "/users/ada/profile", `{"name":"Ada"}`},
		{"payment", "POST", "/deposits", `{"depositId":"` + someID + `","accountId":"ada","amount":5,"currency":"EUR"}`},
		{"payment", "POST", "/deposits", `{"depositId":"` + someID[:35] + `x","accountId":"bob","amount":5,"currency":"EUR"}`},
	} {
		got, err := a.send(r.service, r.method, r.path, strings.ReplaceAll(r.body, someID[:35]+"x", "01980d2e-7c5b-7d3a-9f00-3a1b5c6d7e8f"), nil)
		if err != nil || got.status != http.StatusCreated {
			a.Fatalf("%s %s: %d %s %v", r.method, r.path, got.status, got.body, err)
		}
	}
}

// try sends requests, several at a time, and judges the answers.
func (a *api) try(attempts []attempt) {
	a.Helper()
	var sending errgroup.Group
	sending.SetLimit(senders)
	for _, at := range attempts {
		sending.Go(func() error {
			got, err := a.send(at.op.service, at.op.method, at.url, at.body, at.header)
			if err == nil {
				err = judge(at, got)
			}
			if err != nil {
				a.Errorf("%s, %s: %v\n\t%.300s", at.op, at.what, err, got.body)
			}
			return nil
		})
	}
	_ = sending.Wait() // errors have been reported
}

// named are the refusals that are about a part of the request, which they must name.
var named = []int{http.StatusBadRequest, http.StatusNotAcceptable, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}

// judge says what is wrong with an answer.
func judge(at attempt, got answer) error {
	var p struct {
		Type, Title, Detail string
		Status              int
		Errors              []struct{ Location, Message string }
	}
	contentType := got.header.Get("Content-Type")
	if got.status >= 400 {
		if contentType != "application/problem+json" {
			return fmt.Errorf("%d is %q and no problem", got.status, contentType)
		}
		if err := json.Unmarshal(got.body, &p); err != nil {
			return fmt.Errorf("%d is no JSON: %w", got.status, err)
		}
		if p.Status != got.status || p.Title == "" || p.Detail == "" || !strings.HasPrefix(p.Type, "urn:problem-type:") {
			return fmt.Errorf("%d is an incomplete problem", got.status)
		}
	}
	described, documented := at.op.Responses[fmt.Sprint(got.status)]
	_, others := at.op.Responses["default"]
	switch {
	case got.status >= 500 && p.Type != "urn:problem-type:version-not-there":
		return fmt.Errorf("%d", got.status)
	case got.status >= 300 && got.status < 400 && got.status != http.StatusNotModified:
		return fmt.Errorf("%d", got.status)
	case !documented && !others:
		return fmt.Errorf("%d is not in the description", got.status)
	case got.status < 300 && at.refused:
		return fmt.Errorf("%d: it is taken", got.status)
	case got.status < 300 && len(got.body) > 0 && described.Content[contentType] == nil:
		return fmt.Errorf("%d is %q, which is not in the description", got.status, contentType)
	case slices.Contains(named, got.status) && (len(p.Errors) == 0 || p.Errors[0].Location == "" || p.Errors[0].Message == ""):
		return fmt.Errorf("%d names no place", got.status)
	case at.refused && at.place != "" && !slices.ContainsFunc(p.Errors, func(e struct{ Location, Message string }) bool {
		return strings.HasPrefix(e.Location, at.place)
	}):
		return fmt.Errorf("%d does not name %s", got.status, at.place)
	}
	return nil
}
