package profile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/migrations"
	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/web"
	"github.com/converge-dev/converge/testkit/pgtest"
	"github.com/converge-dev/converge/testkit/sagatest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// bundle is the service's API on a database of its own.
type bundle struct {
	*testing.T
	db  *pgxpool.Pool
	api http.Handler
}

func setup(t *testing.T) bundle {
	t.Helper()
	db := pgtest.New(t, "profile", sagatest.Migrate(pg.Migration{Name: "profile", FS: migrations.For("profile")}))
	server := web.New(web.Config{Service: "profile"})
	register(server.API, db, nil)
	return bundle{t, db, server}
}

// request shows the answer: status, ETag, and the body's version and name, or the problem's type and first field.
func (b bundle) request(method, path, body string, header ...string) string {
	b.Helper()
	req := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	b.api.ServeHTTP(w, req)
	var got struct {
		Name    string
		Version int
		Type    string
		Errors  []struct{ Location string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		b.Fatalf("%s %s: %d %q: %v", method, path, w.Code, w.Body, err)
	}
	if w.Code >= 400 {
		said := fmt.Sprintf("%d %s", w.Code, strings.TrimPrefix(got.Type, web.TypePrefix))
		if len(got.Errors) > 0 {
			said += " " + got.Errors[0].Location
		}
		return said
	}
	return fmt.Sprintf("%d %s %s v%d", w.Code, w.Header().Get("ETag"), got.Name, got.Version)
}

// told shows and empties what lies in the outbox.
func (b bundle) told() []string {
	b.Helper()
	out := []string{}
	for _, r := range sagatest.Drain(b.T, b.db) {
		e := sagatest.Decode(b.T, event.UserProfileUpdated, r)
		out = append(out, fmt.Sprintf("%s: %s v%d %s %s %s", r.Key, e.UserID, e.Version, e.Name, e.Email, e.Bio))
	}
	return out
}

func TestStatementsFitTheSchema(t *testing.T) {
	t.Parallel()
	pgtest.Prepare(t, setup(t).db)
}

// A write names what it replaces, so that none undoes another unseen; each that takes effect is told of once, with its
// version.
func TestVersions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const url = "/users/ada/profile"
	ada, lovelace := `{"name":"Ada"}`, `{"name":"Ada Lovelace","email":"ada@example.com","bio":"Programs."}`
	for _, step := range []struct {
		name, method, body string
		header             []string
		want               string
	}{
		{"none yet", "GET", "", nil, "404 not-found"},
		{"change of none", "PUT", ada, []string{"If-Match", `"1"`}, "412 version-conflict"},
		{"change of any of none", "PUT", ada, []string{"If-Match", "*"}, "412 version-conflict"},
		{"create", "PUT", ada, nil, `201 "1" Ada v1`},
		{"create, sent again", "PUT", ada, nil, `201 "1" Ada v1`},
		{"create, sent again with care", "PUT", ada, []string{"If-None-Match", "*"}, `201 "1" Ada v1`},
		{"create another", "PUT", lovelace, []string{"If-None-Match", "*"}, "412 version-conflict"},
		{"change blindly", "PUT", lovelace, nil, "428 precondition-required header.If-Match"},
		{"change", "PUT", lovelace, []string{"If-Match", `"1"`}, `200 "2" Ada Lovelace v2`},
		{"change, sent again", "PUT", lovelace, []string{"If-Match", `"1"`}, `200 "2" Ada Lovelace v2`},
		{"change what is gone", "PUT", ada, []string{"If-Match", `"1"`}, "412 version-conflict"},
		{"one of several", "PUT", ada, []string{"If-Match", `"7", "2"`}, `200 "3" Ada v3`},
		{"whatever it is", "PUT", lovelace, []string{"If-Match", "*"}, `200 "4" Ada Lovelace v4`},
		{"get", "GET", "", nil, `200 "4" Ada Lovelace v4`},
		{"no ETag", "PUT", ada, []string{"If-Match", "4"}, "422 invalid-request header.If-Match"},
		{"a weak ETag", "PUT", ada, []string{"If-Match", `W/"4"`}, "412 version-conflict"},
		{"a foreign ETag", "PUT", ada, []string{"If-Match", `"abc", "4,5"`}, "412 version-conflict"},
		{"what it is not", "PUT", ada, []string{"If-None-Match", `W/"4"`}, "412 version-conflict"},
		{"what it is not, blindly", "PUT", ada, []string{"If-None-Match", `"3"`}, "428 precondition-required header.If-Match"},
		{"what it is and is not", "PUT", ada, []string{"If-Match", `"4"`, "If-None-Match", `"3", "4"`}, "412 version-conflict"},
		{"what it is, in a list with gaps", "PUT", ada, []string{"If-Match", `,W/"4", "4",`}, `200 "5" Ada v5`},
		{"what it is and was not", "PUT", lovelace, []string{"If-Match", `"5"`, "If-None-Match", `"4"`}, `200 "6" Ada Lovelace v6`},
		{"both", "PUT", ada, []string{"If-Match", `"4"`, "If-None-Match", "*"}, "422 invalid-request header.If-None-Match"},
		{"no name", "PUT", `{"name":" "}`, nil, "422 invalid-request body.name"},
		{"no address", "PUT", `{"name":"Ada","email":"ada"}`, nil, "422 invalid-request body.email"},
		{"unknown field", "PUT", `{"name":"Ada","version":9}`, nil, "422 invalid-request body.version"},
	} {
		if got := b.request(step.method, url, step.body, step.header...); got != step.want {
			t.Errorf("%s: %s; want %s", step.name, got, step.want)
		}
	}
	want := []string{
		"ada: ada v1 Ada  ", "ada: ada v2 Ada Lovelace ada@example.com Programs.", "ada: ada v3 Ada  ",
		"ada: ada v4 Ada Lovelace ada@example.com Programs.", "ada: ada v5 Ada  ", "ada: ada v6 Ada Lovelace ada@example.com Programs.",
	}
	if diff := cmp.Diff(want, b.told()); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// Of writers who take the profile for the same, one succeeds, and so it is when there is none yet.
func TestOneOfManyWriters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, condition := range [][]string{nil, {"If-Match", `"1"`}} {
		var mu sync.Mutex
		answers := map[string]int{}
		var writers sync.WaitGroup
		for i := range 8 {
			writers.Go(func() {
				got := b.request("PUT", "/users/bob/profile", fmt.Sprintf(`{"name":"Bob %d"}`, i), condition...)
				mu.Lock()
				defer mu.Unlock()
				answers[got[:3]]++
			})
		}
		writers.Wait()
		success, refusal := "201", "428"
		if condition != nil {
			success, refusal = "200", "412"
		}
		if diff := cmp.Diff(map[string]int{success: 1, refusal: 7}, answers); diff != "" {
			t.Errorf("with %v (-want +got):\n%s", condition, diff)
		}
	}
	if told := b.told(); len(told) != 2 {
		t.Errorf("told of %q; want each version once", told)
	}
}
