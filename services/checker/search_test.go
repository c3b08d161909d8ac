package checker

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/converge-dev/converge/pkg/checker"
)

// What search shows is compared where the checker is told of a search, and is no part of a check elsewhere: nobody is
// blind to what is not there.
func TestSearchIsComparedWhereThereIsOne(t *testing.T) {
	t.Parallel()
	cfg := Config{InventoryURL: "http://inventory", ProfileURL: "http://profile"}
	if mirrors := cfg.declare().Mirrors; mirrors != nil {
		t.Errorf("without a search, compared are %+v", mirrors)
	}
	cfg.SearchURL = "http://search"
	want := []checker.Mirror{{Name: "search", URL: "http://search", Of: []checker.Mirrored{
		{Set: "products", Thing: "product", Owner: "inventory", URL: "http://inventory"}, {Set: "users", Thing: "user", Owner: "profile", URL: "http://profile"},
	}}}
	if diff := cmp.Diff(want, cfg.declare().Mirrors); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := checker.New(cfg.declare()); err != nil {
		t.Error(err)
	}
}
