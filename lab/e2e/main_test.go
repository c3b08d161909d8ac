// Package e2e tests the system from outside: services that run as they do in production, on a broker and a PostgreSQL
// server each, told about nothing but their settings, and looked at over HTTP and Kafka alone.
package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/testkit/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

// patience is how long anything may take that is to happen at all.
const patience = 90 * time.Second

// eventually waits until check finds nothing wrong any more.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// unique makes a name that no other test uses.
func unique(kind string) string { return kind + "-" + strings.ToLower(rand.Text()[:10]) }

// answer is what an HTTP request came back with.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// request sends a JSON body, or none, and reads the whole answer.
func request(ctx context.Context, method, url string, body any, header ...string) (answer, error) {
	var payload io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(b)
	default:
		p, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		payload = bytes.NewReader(p)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, payload)
	if err != nil {
		return answer{}, err
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, b}, err
}

// errAbsent says that a service knows nothing of what it was asked for.
var errAbsent = errors.New("there is none")

// fetch reads a resource.
func fetch[T any](ctx context.Context, url string) (v T, err error) {
	a, err := request(ctx, http.MethodGet, url, nil)
	switch {
	case err != nil:
		return v, err
	case a.status == http.StatusNotFound:
		return v, fmt.Errorf("GET %s: %w", url, errAbsent)
	case a.status != http.StatusOK:
		return v, fmt.Errorf("GET %s: %d %s", url, a.status, a.body)
	}
	return v, json.Unmarshal(a.body, &v)
}
