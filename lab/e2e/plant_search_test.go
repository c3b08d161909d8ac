package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/services/cli"
)

// searchShowsOtherwise changes, deletes and makes up what search shows, behind its back: each is found and named; what
// the owner can put right by telling again is, and a rebuild does the rest.
func (s *spine) searchShowsOtherwise(t *testing.T, g *garden) {
	g.T = t
	search, err := pgxpool.New(t.Context(), s.dbs["search"].URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer search.Close()
	user, gone, product := unique("user"), unique("user"), s.product(t, 7)
	for _, id := range []string{user, gone} {
		if a, err := request(t.Context(), http.MethodPut, s.url("profile")+"/users/"+id+"/profile", map[string]string{"name": "Ada", "bio": "counts"}); err != nil || a.status != http.StatusCreated {
			t.Fatalf("put the profile: %d %s %v", a.status, a.body, err)
		}
	}
	shown := func() map[string]string {
		return read[string](t, search, `SELECT kind || '/' || id, title || ' ' || detail || ' ' || version FROM documents WHERE generation = (SELECT serving_generation())`)
	}
	eventually(t, "search shows them", func() error {
		if all := shown(); all["user/"+user] == "" || all["user/"+gone] == "" || all["product/"+product] == "" {
			return fmt.Errorf("it shows %v", all)
		}
		return nil
	})
	s.clean(t)
	was := shown()
	found := func() (all []string) {
		c, err := s.check(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range c.Findings {
			all = append(all, f.Kind+" "+f.Subject+" "+f.Repair.Action+" "+f.Repair.State)
		}
		return all
	}
	same := func() {
		t.Helper()
		s.clean(t)
		now := shown()
		for at, text := range was {
			if now[at] != text {
				t.Errorf("search shows %q at %s, and showed %q", now[at], at, text)
			}
		}
		if len(now) != len(was) {
			t.Errorf("search shows %d things, and showed %d", len(now), len(was))
		}
	}

	g.exec(search, `UPDATE documents SET title = 'another title' WHERE id = $1`, product)
	g.exec(search, `UPDATE documents SET version = 0, detail = '' WHERE id = $1`, user)
	g.exec(search, `DELETE FROM documents WHERE id = $1`, gone)
	s.finds(t, []string{"search-missing", "search-stale", "search-stale"})
	out, err := s.command(t, "check", "-url", s.url("checker"))
	if !errors.Is(err, cli.ErrFound) || !strings.Contains(out, "search-stale    product/"+product+"  ") || !strings.Contains(out, "search-missing  user/"+gone+"  ") || !strings.Contains(out, "would tell again") {
		t.Errorf("converge check: %v, says\n%s", err, out)
	}
	want := []string{"search-missing user/" + gone + " tell again DONE", "search-stale product/" + product + " tell again DONE", "search-stale user/" + user + " tell again DONE"}
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	same()

	ghost := unique("ghost")
	g.exec(search, `UPDATE documents SET version = version + 7 WHERE id = $1`, product)
	g.exec(search, `INSERT INTO documents (generation, kind, id, version, title, detail, folded, grams) VALUES (serving_generation(), 'user', $1, 1, 'Ghost', '', 'ghost', '{}')`, ghost)
	s.finds(t, []string{"search-extra", "search-stale"})
	want = []string{"search-extra user/" + ghost + " operator NONE", "search-stale product/" + product + " operator NONE"}
	if got := found(); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	s.converge(t, "rebuild", "search", "-url", s.url("search"))
	same()
}
