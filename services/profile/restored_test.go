package profile

import (
	"fmt"
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/web"
)

// A copy of version 3 was restored after version 5 was published. From then on changes have versions that nobody has heard of, and the profile's owner
// goes on with the ETag that is there.
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
