package facts_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// A first audit of a large database takes longer than a request may, and is answered all the same.
func TestAuditTakesLongerThanARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := web.New(web.Config{Service: "facts", Timeout: 30 * time.Second})
		facts.Server{
			Source: facts.Source{Set: "things"},
			Audit: func(ctx context.Context, _ bool) ([]facts.Breach, error) {
				select {
				case <-time.After(5 * time.Minute):
					return nil, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			},
		}.Register(server.API)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/facts/audit?full=true", nil))
		if w.Code != http.StatusOK {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
