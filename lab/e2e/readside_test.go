package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// readsFollow writes a profile and a product, places an order, finds all of it at the read sides, rebuilds these, and
// finds the same. One of them being down is nothing to the other.
func readsFollow(t *testing.T, s *spine) {
	user, tea := unique("user"), s.product(t, 1)
	profile := s.url("profile") + "/users/" + user + "/profile"
	put := func(name, ifMatch string) answer {
		t.Helper()
		var header []string
		if ifMatch != "" {
			header = []string{"If-Match", ifMatch}
		}
		a, err := request(t.Context(), http.MethodPut, profile, map[string]string{"name": name}, header...)
		if err != nil || a.status > http.StatusCreated {
			t.Fatalf("put the profile: %d %s %v", a.status, a.body, err)
		}
		return a
	}
	first := put("Somebody Else", "")
	put("渡辺 "+user, first.header.Get("ETag"))
	o := s.place(t, cart(user, tea, 1, 2500))
	s.settled(t, o.ID, confirmed, "order.created", "payment.completed")

	// Read your own writes: the answer waits for them.
	find := func(query string) string {
		t.Helper()
		a, err := request(t.Context(), http.MethodGet, s.url("search")+"/search?"+query, nil)
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("search %s: %d %s %v", query, a.status, a.body, err)
		}
		return string(a.body)
	}
	mine := "q=" + url.QueryEscape("渡辺") + "&waitMs=10000&minVersion=user:" + user + ":2"
	if got := find(mine); !strings.Contains(got, `"id":"`+user+`","version":2,`) {
		t.Errorf("search finds %s", got)
	}
	soldOut := func() string {
		return find("q=" + tea + "&type=product&waitMs=10000&minVersion=product:" + tea + ":2")
	}
	if got := soldOut(); !strings.Contains(got, "SOLD_OUT") {
		t.Errorf("of what is sold out, search finds %s", got)
	}
	window := "?from=" + url.QueryEscape(time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339)) + "&to=" + url.QueryEscape(time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	report := func(name string) string {
		t.Helper()
		a, err := request(t.Context(), http.MethodGet, s.url("analytics")+"/analytics/"+name+window+"&waitMs=10000&minVersion=user:"+user+":2", nil)
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("report %s: %d %s %v", name, a.status, a.body, err)
		}
		return string(a.body)
	}
	reports := func() (all []string) {
		for _, name := range []string{"orders", "revenue", "refusals", "durations", "cancellations", "profile-updates"} {
			all = append(all, report(name))
		}
		return all
	}
	caughtUp := func(service, path string) {
		t.Helper()
		written := time.Now()
		eventually(t, service+" has caught up", func() error {
			a, err := request(t.Context(), http.MethodGet, s.url(service)+path, nil)
			if err != nil {
				return err
			}
			var ms int64
			if err := json.Unmarshal([]byte(a.header.Get("X-Consistency-Lag-Ms")), &ms); err != nil {
				return fmt.Errorf("the header says %q", a.header.Get("X-Consistency-Lag-Ms"))
			}
			if time.Now().Add(-time.Duration(ms) * time.Millisecond).Before(written) {
				return fmt.Errorf("it can be %d ms behind", ms)
			}
			return nil
		})
	}
	caughtUp("search", "/search?q=x")
	caughtUp("analytics", "/analytics/orders")
	before := append(reports(), find(mine), soldOut())

	for _, side := range []string{"search", "analytics"} {
		if out := s.converge(t, "rebuild", side, "-url", s.url(side)); !strings.Contains(out, " serves, from ") {
			t.Errorf("rebuild %s says %q", side, out)
		}
	}
	after := append(reports(), find(mine), soldOut())
	for i := range before {
		if before[i] != after[i] {
			t.Errorf("rebuilt, it says\n%s\nbefore:\n%s", after[i], before[i])
		}
	}

	s.stop(t, "search")
	third := put("Somebody Else", `"2"`)
	mineNow := "&waitMs=10000&minVersion=user:" + user + ":3"
	if a, err := request(t.Context(), http.MethodGet, s.url("analytics")+"/analytics/profile-updates?waitMs=10000&minVersion=user:"+user+":3", nil); err != nil || a.status != http.StatusOK {
		t.Errorf("analytics while search is down: %d %s %v", a.status, a.body, err)
	}
	s.start(t, "search")
	if got := find("q=" + user + mineNow); !strings.Contains(got, `"version":3`) {
		t.Errorf("when search is back it finds %s; want version %s", got, third.header.Get("ETag"))
	}
}
