package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
)

// restoredIsFound changes a profile and a product, puts older copies of their rows in place of the databases' as a
// restore does, and follows the operator's way: what search shows is what was lost, until somebody says that the
// databases were restored; then it is what there is, at once, after a rebuild, and with the next change.
func (s *spine) restoredIsFound(t *testing.T, g *garden) {
	g.T = t
	profiles, err := pgxpool.New(t.Context(), s.dbs["profile"].URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer profiles.Close()
	user, product := unique("user"), unique("product")
	said := map[string]string{ // what a client says of each, to be found by its first word
		"profile": s.url("profile") + "/users/" + user + "/profile", "inventory": s.url("inventory") + "/products/" + product,
	}
	put := func(word string) {
		t.Helper()
		for service, path := range said {
			body := map[string]any{"name": word + " " + service}
			if service == "inventory" {
				body["price"], body["currency"] = 100, "EUR"
			}
			var header []string
			if a, err := request(t.Context(), http.MethodGet, path, nil); err == nil && a.status == http.StatusOK {
				header = []string{"If-Match", a.header.Get("ETag")}
			}
			if a, err := request(t.Context(), http.MethodPut, path, body, header...); err != nil || a.status > http.StatusCreated {
				t.Fatalf("PUT %s: %d %s %v", path, a.status, a.body, err)
			}
		}
	}
	shows := func(words ...string) { // the first one, and none of the others
		t.Helper()
		eventually(t, "search shows "+words[0], func() error {
			for i, word := range words {
				a, err := request(t.Context(), http.MethodGet, s.url("search")+"/search?q="+url.QueryEscape(word), nil)
				if err != nil || a.status != http.StatusOK {
					return fmt.Errorf("%d %s %w", a.status, a.body, err)
				}
				for service, id := range map[string]string{"profile": user, "inventory": product} {
					if found := strings.Contains(string(a.body), `"id":"`+id+`"`) && strings.Contains(string(a.body), word+" "+service); found != (i == 0) {
						return fmt.Errorf("of %s, %s is found: %t, %s", service, word, found, a.body)
					}
				}
			}
			return nil
		})
	}
	old, lost, next := unique("kept"), unique("lost"), unique("next")
	put(old)
	shows(old)
	was := []string{
		read[string](t, profiles, `SELECT user_id, to_jsonb(p)::text FROM profiles p`)[user],
		read[string](t, g.inventory, `SELECT id, to_jsonb(p)::text FROM products p`)[product],
	}
	put(lost)
	shows(lost, old)
	g.exec(profiles, `DELETE FROM profiles WHERE user_id = $1`, user)
	g.exec(profiles, `INSERT INTO profiles SELECT * FROM jsonb_populate_record(NULL::profiles, $1::text::jsonb)`, was[0])
	g.exec(g.inventory, `UPDATE products p SET (name, version, updated_at) = (
		SELECT name, version, updated_at FROM jsonb_populate_record(NULL::products, $1::text::jsonb)) WHERE id = $2`, was[1], product)
	s.converge(t, "rebuild", "search", "-url", s.url("search"))
	shows(lost, old) // the topics have nothing else

	for service := range said {
		if out := s.converge(t, "restored", service, "-url", s.url(service)); !strings.Contains(out, service+" has published ") ||
			!strings.Contains(out, service+": epoch 2.") {
			t.Errorf("converge restored %s says\n%s", service, out)
		}
	}
	shows(old, lost)
	s.finds(t, []string{"database-changed"}) // of inventory: the checker does not ask which database profile has
	s.converge(t, "check", "-confirm", "-url", s.url("checker"))
	s.clean(t)
	s.converge(t, "rebuild", "search", "-url", s.url("search"))
	shows(old, lost)
	put(next)
	shows(next, old, lost)
	s.clean(t)
}
