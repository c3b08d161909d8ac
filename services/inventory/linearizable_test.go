package inventory

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/converge-dev/converge/testkit/sagatest"
)

// access reads a product's name or, if it has a name, gives it that where it has the one that was read.
type access struct{ read, name string }

type accessed struct {
	status int
	name   string
}

// A product that clients read and change at the same time is a register that is compared and set: of two who change
// what both have read, one is told that it has changed meanwhile.
func TestETagsAreLinearizable(t *testing.T) {
	t.Parallel()
	b := setup(t, Line{"p-1", 5})
	api := b.api()
	step := func(is string, in access, out accessed) (string, bool) {
		switch {
		case in.name == "":
			return is, out.name == is
		case in.read == is:
			return in.name, out.status == http.StatusOK
		}
		return is, out.status == http.StatusPreconditionFailed
	}
	sagatest.Linearizable(t, "p-1", step, 5, func(i int, do func(in access, call func() accessed) accessed) {
		for n := range 10 {
			var etag string
			read := do(access{}, func() accessed {
				w := send(t, api, http.MethodGet, "/products/p-1", "")
				etag = w.Header().Get("ETag")
				var p Product
				if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
					t.Error(err)
				}
				return accessed{w.Code, p.Name}
			})
			in := access{read.name, fmt.Sprintf("name %d of client %d", n, i)}
			do(in, func() accessed {
				body := fmt.Sprintf(`{"name":%q,"price":%d,"currency":"EUR"}`, in.name, price)
				return accessed{status: send(t, api, http.MethodPut, "/products/p-1", body, "If-Match", etag).Code}
			})
		}
	})
}
