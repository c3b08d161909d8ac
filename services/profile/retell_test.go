package profile

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// Single profiles are told of as they are. Who is not here is not, and what cannot be an event is refused, and nothing
// told.
func TestToldAgainByID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	facts.Retelling{DB: b.db, Page: retell, Only: retellOnly, Wake: func() {}}.Register(b.api.(*web.Server).API)
	if _, err := b.db.Exec(t.Context(), `INSERT INTO profiles (user_id, version, name, email, bio) VALUES ('ada', 3, 'Ada', '', 'counts'), ('bob', 1, 'Bob', '', ''), ('eve', 1, '', '', '')`); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		body   string
		status int
		says   string
	}{
		{`{"ids":["ada","nobody"]}`, http.StatusOK, `"told":1`},
		{`{"ids":["nobody"]}`, http.StatusOK, `"told":0`},
		{`{"ids":["bob","eve"]}`, http.StatusConflict, "untellable"},
		{`{"ids":["a\u0000"]}`, http.StatusUnprocessableEntity, "body.ids[0]"},
		{`{"ids":[]}`, http.StatusUnprocessableEntity, "body.ids"},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/told-again", strings.NewReader(one.body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, req)
		if w.Code != one.status || !strings.Contains(w.Body.String(), one.says) {
			t.Errorf("%s: %d %s, want %d %s", one.body, w.Code, w.Body, one.status, one.says)
		}
	}
	if diff := cmp.Diff([]string{"ada: ada v3 Ada  counts"}, b.told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
