package order

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDuplicates(t *testing.T) {
	t.Parallel()
	got := Draft{Items: []Item{{"a", 1}, {"b", 1}, {"a", 2}, {"c", 1}, {"a", 3}, {"b", 1}}}.duplicates()
	want := []duplicate{{2, 0}, {4, 0}, {5, 1}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(duplicate{})); diff != "" {
		t.Errorf("duplicates (-want +got):\n%s", diff)
	}
}
