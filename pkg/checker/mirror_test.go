package checker

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// shop is an owner of products and a search that shows them. The test decides how far both are.
type shop struct {
	*bundle
	mu    sync.Mutex
	flows func(of string) facts.Flow // what owner and search answer to be asked how far they are; nil: nothing waits
	told  []string                   // what the owner was asked to tell again
}

func openShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{bundle: setup(t)}
	s.exec(`CREATE TABLE products (id text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, name text NOT NULL, price bigint)`)
	s.exec(`CREATE TABLE documents (kind text, id text COLLATE "C" PRIMARY KEY, version bigint NOT NULL, title text NOT NULL, cost bigint)`)
	s.cfg.Grace = time.Millisecond
	s.cfg.Mirrors = []Mirror{{
		Name: "search", URL: s.serve("search", facts.Shown{Of: "products", Table: "documents", Where: "kind = 'product'", ID: "id", Version: "version", Text: []string{"title", "cost"}}),
		Of: []Mirrored{{Set: "products", Thing: "product", Owner: "shop",
			URL: s.serve("shop", facts.Shown{Of: "products", Table: "products", ID: "id", Version: "version", Text: []string{"name", "price"}})}},
	}}
	return s
}

func (s *shop) serve(name string, shown facts.Shown) (url string) {
	w := web.New(web.Config{Service: name})
	facts.Server{DB: s.db, Service: saga.Service{Name: name}, Shown: []facts.Shown{shown}}.RegisterShown(w.API)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case r.URL.Path == "/told-again":
			var in struct{ IDs []string }
			_ = json.NewDecoder(r.Body).Decode(&in)
			s.told = append(s.told, in.IDs...)
			answer(rw, map[string]int{"told": len(in.IDs)})
		case r.URL.Path == "/facts/flow" && s.flows != nil:
			answer(rw, s.flows(name))
		default:
			w.ServeHTTP(rw, r)
		}
	}))
	s.Cleanup(server.Close)
	return server.URL
}

// stock has the owner hold n products, and search show them.
func (s *shop) stock(n int) {
	s.Helper()
	s.exec(`INSERT INTO products SELECT 'p-' || i, 3, 'tea ' || i, 100 FROM generate_series(1, $1::int) AS i`, n)
	s.exec(`INSERT INTO documents SELECT 'product', id, version, name, price FROM products`)
}

func findingsOf(r Report) (all []string) {
	for _, f := range r.Findings {
		all = append(all, string(f.Kind)+" "+f.Subject+" "+f.Repair.Action+" "+string(f.Repair.State))
	}
	return all
}

// What search does not show, shows as something else, or shows alone, is found by its kind and place; the owner tells
// again what that can put right.
func TestMirror(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	s.stock(30)
	s.exec(`INSERT INTO documents VALUES ('user', 'ada', 1, 'Ada', NULL)`) // is of another owner
	if r := s.check(Request{}); len(r.Findings) > 0 || !slices.Contains(r.Looked, Part("search")) {
		t.Fatalf("all agree: %+v, looked at %v", r.Findings, r.Looked)
	}
	s.exec(`DELETE FROM documents WHERE id = 'p-1'`)
	s.exec(`UPDATE documents SET title = 'coffee' WHERE id = 'p-2'`)
	s.exec(`UPDATE documents SET version = 2, title = 'old tea' WHERE id = 'p-3'`)
	s.exec(`UPDATE documents SET version = 9 WHERE id = 'p-4'`)
	s.exec(`DELETE FROM products WHERE id = 'p-5'`)
	s.exec(`UPDATE documents SET cost = NULL WHERE id = 'p-6'`)
	s.exec(`UPDATE documents SET title = 'tea 8' WHERE id = 'p-7'`) // two that are swapped differ, too
	s.exec(`UPDATE documents SET title = 'tea 7' WHERE id = 'p-8'`)
	want := func(state string) []string {
		again := " tell again " + state
		return []string{
			"search-extra product/p-5 operator NONE", "search-missing product/p-1" + again, "search-stale product/p-2" + again, "search-stale product/p-3" + again,
			"search-stale product/p-4 operator NONE", "search-stale product/p-6" + again, "search-stale product/p-7" + again, "search-stale product/p-8" + again,
		}
	}
	if diff := cmp.Diff(want("PLANNED"), findingsOf(s.check(Request{}))); diff != "" || s.told != nil {
		t.Errorf("found (-want +got):\n%s, told again: %v", diff, s.told)
	}
	if r := s.check(Request{Since: noon.Add(-time.Hour)}); len(r.Findings) > 0 {
		t.Errorf("a check of the recent orders finds %v", findingsOf(r))
	}
	if diff := cmp.Diff(want("DONE"), findingsOf(s.check(Request{Repair: true}))); diff != "" {
		t.Errorf("repaired (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"p-1", "p-2", "p-3", "p-6", "p-7", "p-8"}, s.told); diff != "" {
		t.Errorf("told again (-want +got):\n%s", diff)
	}
}

// What is on its way is not found: it is waited for, and judged when all that was told before is heard. Who is too far
// behind is not judged, and the check says that it is blind there; the other parts look.
func TestMirrorWaitsForWhatIsOnItsWay(t *testing.T) {
	t.Parallel()
	old := func(t *testing.T) *shop {
		s := openShop(t)
		s.stock(3)
		s.exec(`UPDATE products SET version = 4, name = 'new tea' WHERE id = 'p-1'`)
		return s
	}
	t.Run("it arrives", func(t *testing.T) {
		t.Parallel()
		s := old(t)
		s.cfg.Grace = time.Minute
		asked := 0
		s.flows = func(of string) facts.Flow {
			switch asked++; {
			case asked == 6: // the third time that both are asked
				s.exec(`UPDATE documents SET version = 4, title = 'new tea' WHERE id = 'p-1'`)
			case asked < 4 && of == "shop":
				return facts.Flow{Unpublished: 1}
			case asked < 6 && of == "search":
				return facts.Flow{UnhandledMs: 20}
			}
			return facts.Flow{}
		}
		if r := s.check(Request{}); len(r.Findings) > 0 || asked < 6 {
			t.Errorf("found %v, asked %d times", findingsOf(r), asked)
		}
	})
	t.Run("it is lost while others come", func(t *testing.T) {
		t.Parallel()
		s := old(t)
		s.flows = func(string) facts.Flow { return facts.Flow{Unpublished: 1, UnpublishedMs: 1, UnhandledMs: 1} }
		if diff := cmp.Diff([]string{"search-stale product/p-1 tell again PLANNED"}, findingsOf(s.check(Request{}))); diff != "" {
			t.Errorf("found (-want +got):\n%s", diff)
		}
	})
	t.Run("it changes all the time", func(t *testing.T) {
		t.Parallel()
		s := old(t)
		s.flows = func(string) facts.Flow {
			s.exec(`UPDATE products SET version = version + 1 WHERE id = 'p-1'`)
			return facts.Flow{}
		}
		if r := s.check(Request{}); len(r.Findings) > 0 {
			t.Errorf("found %v", findingsOf(r))
		}
	})
	t.Run("search is an hour behind", func(t *testing.T) {
		t.Parallel()
		s := old(t)
		s.flows = func(of string) facts.Flow {
			return map[string]facts.Flow{"search": {UnhandledMs: time.Hour.Milliseconds()}}[of]
		}
		r, err := s.checker().Check(t.Context(), Request{})
		if err == nil || len(r.Findings) > 0 || len(r.Failed) != 1 || r.Failed[0].Part != "search" || !strings.Contains(r.Failed[0].Detail, "not judged") || len(r.Looked) != 3 {
			t.Errorf("%v: found %v, failed %v, looked at %v", err, findingsOf(r), r.Failed, r.Looked)
		}
	})
}

// Who finds something wrong with itself, or cannot look, is not asked to tell again: what is told of a damaged row
// stays in the topics.
func TestMirrorHearsNothingFromWhoIsWrong(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	s.stock(3)
	s.exec(`DELETE FROM documents WHERE id = 'p-1'`)
	s.cfg.Mirrors[0].Of[0].Owner = "shipping" // which has audits
	s.rules[shipping] = []facts.Breach{{Kind: string(parcelMismatch), Subject: "p-1", Detail: "lost"}}
	s.refuse = &Refusal{Status: http.StatusConflict, Title: "no"}
	if r := s.check(Request{Repair: true}); len(r.Findings) != 2 || r.Findings[1].Repair.Detail != "not yet: what shipping finds with itself comes first" || s.told != nil {
		t.Errorf("found %+v, told again %v", r.Findings, s.told)
	}
	s.blind[shipping] = true
	r, err := s.checker().Check(t.Context(), Request{Repair: true})
	if err == nil || len(r.Findings) != 1 || r.Findings[0].Repair.Detail != "not yet: a part of the check failed that it depends on" || s.told != nil {
		t.Errorf("%v: found %+v, told again %v", err, r.Findings, s.told)
	}
	s.blind[shipping], s.refuse = false, nil
	if s.check(Request{Repair: true}); !slices.Equal(s.told, []string{"p-1"}) {
		t.Errorf("counted anew, told again %v", s.told)
	}
}

// An empty search, or one with the wrong address, is not filled unseen.
func TestMirrorBrakes(t *testing.T) {
	t.Parallel()
	s := openShop(t)
	s.stock(1500)
	s.exec(`DELETE FROM documents`)
	r := s.check(Request{Repair: true})
	if len(r.Findings) != maxFindings || r.Kinds["search-missing"] != maxFindings || r.Braked == "" || s.told != nil {
		t.Errorf("found %v, braked %q, told again %v", r.Kinds, r.Braked, s.told)
	}
	s.exec(`INSERT INTO documents SELECT 'product', id, version, name, price FROM products WHERE id <> 'p-7'`)
	if r = s.check(Request{Repair: true}); r.Braked != "" || !slices.Equal(s.told, []string{"p-7"}) {
		t.Errorf("braked %q, told again %v", r.Braked, s.told)
	}
}

// A mirror has a name that no other part has.
func TestMirrorsAreDeclared(t *testing.T) {
	t.Parallel()
	of := []Mirrored{{Set: "products", Thing: "product", Owner: "shop"}}
	for _, wrong := range [][]Mirror{{{Of: of}}, {{Name: "search"}}, {{Name: "orders", Of: of}}, {{Name: "search", Of: of}, {Name: "search", Of: of}}, {{Name: "search", Of: []Mirrored{{Set: "products"}}}}} {
		cfg := Config{Services: []Service{{Name: "order", Set: "confirmed"}}, Rules: []Rule{Settles(orderStuck, "order", time.Minute, "PENDING")}, Mirrors: wrong}
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "mirror") {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
