package inventory

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A product has a description, which PUT replaces as it does the rest: under If-Match, and one that is not given is
// empty from then on.
func TestDescription(t *testing.T) {
	t.Parallel()
	const plain = `{"name": "tea", "price": 100, "currency": "EUR"}`
	described := func(text string) string { return strings.TrimSuffix(plain, "}") + `, "description": "` + text + `"}` }
	b := setup(t)
	api := b.api()
	shows := func(want any) {
		t.Helper()
		_, one := request(t, api, http.MethodGet, "/products/tea", "")
		_, list := request(t, api, http.MethodGet, "/products", "")
		listed := list["products"].([]any)[0].(map[string]any)
		if one["description"] != want || listed["description"] != want {
			t.Errorf("it is %v, in the list %v, want %v", one["description"], listed["description"], want)
		}
	}
	status, got := request(t, api, http.MethodPut, "/products/tea", described(`black,\nfor two`))
	if want := "black,\nfor two"; status != http.StatusCreated || got["description"] != want {
		t.Errorf("created: %d %v", status, got)
	}
	shows("black,\nfor two")
	b.putTea(api, described(`black,\nfor two`), nil, "200") // once more
	b.putTea(api, described("green"), nil, "428 precondition-required header.If-Match")
	b.putTea(api, plain, nil, "428 precondition-required header.If-Match")
	was := b.etag(api)
	b.putTea(api, described("green"), []string{"If-Match", was}, "200")
	b.putTea(api, described("white"), []string{"If-Match", was}, "412 version-conflict ")
	shows("green")
	b.putTea(api, described(strings.Repeat("é", 2000)), []string{"If-Match", "*"}, "200")
	b.putTea(api, described(strings.Repeat("é", 2001)), []string{"If-Match", "*"}, "422 invalid-request body.description")
	b.putTea(api, described(`a\u0000`), []string{"If-Match", "*"}, "422 invalid-request body.description")
	b.putTea(api, plain, []string{"If-Match", "*"}, "200")
	shows(nil)
	if diff := cmp.Diff(Product{ID: "tea", Name: "tea", Price: 100, Currency: "EUR"}.etagOfDraft(), `"553c7e09270bc192-`); diff != "" {
		t.Errorf("without one, processes of an earlier version give another ETag (-want +got):\n%s", diff)
	}
}

// A process of an earlier version leaves the description as it is.
func TestEarlierPutLeavesTheDescription(t *testing.T) {
	t.Parallel()
	b := setup(t)
	api := b.api()
	b.putTea(api, `{"name": "tea", "price": 100, "currency": "EUR", "description": "black"}`, nil, "201")
	b.exec(earlierPut, "tea", "tea", 110, "EUR", 0)
	if p, _, err := findProduct(t.Context(), b.db, "tea"); err != nil || p.Description != "black" || p.Price != 110 {
		t.Errorf("%+v, %v", p, err)
	}
	b.exec(earlierPut, "cup", "cup", 100, "EUR", 0)
	if p, _, err := findProduct(t.Context(), b.db, "cup"); err != nil || p.Description != "" || p.Name != "cup" {
		t.Errorf("%+v, %v", p, err)
	}
}
