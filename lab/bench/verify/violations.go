package verify

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
)

// shown bounds how many examples of one violation are listed.
const shown = 5

type violations struct{ lines []string }

func (v *violations) that(ok bool, format string, args ...any) {
	if !ok {
		v.lines = append(v.lines, fmt.Sprintf(format, args...))
	}
}

// none reports ids that should not be.
func (v *violations) none(ids map[uuid.UUID]struct{}, what string) {
	if len(ids) == 0 {
		return
	}
	some := slices.SortedFunc(maps.Keys(ids), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	names := make([]string, 0, shown)
	for _, id := range some[:min(shown, len(some))] {
		names = append(names, id.String())
	}
	v.that(false, "%d %s: %v", len(ids), what, names)
}
