package profile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// A copy of version 3 was restored after version 5 was published. From then on changes have versions that nobody has
// heard of, and the profile's owner goes on with the ETag that is there.
func TestVersionsGrowBeyondWhatWasPublished(t *testing.T) {
	t.Parallel()
	b := setup(t)
	facts.Identified{DB: b.db, Restored: facts.RaiseVersions("profiles")}.Register(b.api.(*web.Server).API)
	b.request("PUT", "/users/ada/profile", `{"name":"Ada"}`)
	for v := 1; v < 5; v++ {
		b.request("PUT", "/users/ada/profile", fmt.Sprintf(`{"name":"Ada %d"}`, v+1), "If-Match", fmt.Sprintf(`"%d"`, v))
	}
	if _, err := b.db.Exec(t.Context(), `UPDATE profiles SET version = 3, name = 'Ada 3'`); err != nil {
		t.Fatal(err)
	}
	b.told()
	for range 2 {
		if got := b.request("POST", "/restored", `{"seen":1}`); !strings.HasPrefix(got, "200") {
			t.Fatal(got)
		}
	}
	want := int64(3 + facts.VersionStep)
	if got := b.request("GET", "/users/ada/profile", ""); got != fmt.Sprintf(`200 "%d" Ada 3 v%d`, want, want) {
		t.Errorf("restored, it is %s", got)
	}
	if got := b.request("PUT", "/users/ada/profile", `{"name":"Another"}`, "If-Match", fmt.Sprintf(`"%d"`, want)); got != fmt.Sprintf(`200 "%d" Another v%d`, want+1, want+1) {
		t.Errorf("changed, it is %s", got)
	}
	if told := strings.Join(b.told(), "\n"); !strings.Contains(told, fmt.Sprint(want+1)) || !strings.Contains(told, "Another") {
		t.Errorf("told: %s", told)
	}
}

// Who has heard of the lost changes is told what there is now: all of it, page by page, each profile once, in the
// version that it has.
func TestToldAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	woken := 0
	facts.Retelling{DB: b.db, Page: retell, Wake: func() { woken++ }}.Register(b.api.(*web.Server).API)
	const profiles = 1203
	if _, err := b.db.Exec(t.Context(), `INSERT INTO profiles (user_id, version, name, email, bio) SELECT 'u-' || n, 1000000 + n, 'Name ' || n, '', 'bio' FROM generate_series(1, $1) AS n`, profiles); err != nil {
		t.Fatal(err)
	}
	type page struct {
		Told int
		Next string
	}
	var pages []int
	for after := ""; ; {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/told-again", strings.NewReader(fmt.Sprintf(`{"after":%q}`, after)))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		b.api.ServeHTTP(w, req)
		var p page
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%d %s %v", w.Code, w.Body, err)
		}
		pages = append(pages, p.Told)
		if after = p.Next; after == "" {
			break
		}
	}
	if diff := cmp.Diff([]int{500, 500, 203}, pages); diff != "" || woken != 3 {
		t.Errorf("woken %d times (-want +got):\n%s", woken, diff)
	}
	told, want := b.told(), []string{}
	for n := range profiles {
		want = append(want, fmt.Sprintf("u-%[1]d: u-%[1]d v%[2]d Name %[1]d  bio", n+1, 1000001+n))
	}
	slices.Sort(told)
	slices.Sort(want)
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
