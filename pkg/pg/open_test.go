package pg_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Who waits for a server that does not come is told which one, and why it could not be reached.
func TestOpenSaysWhatItWaitedFor(t *testing.T) {
	t.Parallel()
	addr := pgtest.FreeAddr(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := pg.Open(ctx, "postgres://u:secret@"+addr+"/shop?sslmode=disable")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"database shop at " + addr, "connection refused"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}
