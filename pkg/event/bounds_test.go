package event_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/event"
)

// A body of 2 MiB whose items are all broken makes an error that a person can read, not hundreds of megabytes.
func TestErrorsAreBounded(t *testing.T) {
	const items = 600_000
	body := `{"items":[` + strings.TrimSuffix(strings.Repeat(`{},`, items), ",") + `]}`
	var e event.OrderCreatedV1
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	var err error
	allocated := testing.AllocsPerRun(1, func() { err = e.Validate() })
	if err == nil || len(err.Error()) > 2000 || !strings.HasSuffix(err.Error(), "and 1199983 more") {
		t.Errorf("the error has %d bytes: %.300s", len(err.Error()), err)
	}
	if allocated > 500 {
		t.Errorf("%v allocations for an error of %d bytes", allocated, len(err.Error()))
	}
	for i, want := range []string{"orderId is missing", "userId is missing", "items[0].productId is missing", "items[0].quantity is missing or not positive"} {
		if got := strings.Split(err.Error(), "\n")[i]; got != want {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
}
