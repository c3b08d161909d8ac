package outbox_test

import (
	"strings"
	"testing"

	"github.com/converge-dev/converge/pkg/outbox"
)

// A manual relay takes what it has published out of the table with its next step. One that crashes in between publishes
// it again.
func TestManualPublishesAgainAfterACrash(t *testing.T) {
	t.Parallel()
	db, kafka := database(t), newMemory(1)
	relay, err := outbox.NewRelay(db, kafka, outbox.Config{Keep: -1}).Manual(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	step := func(limit, waiting int, want string) {
		t.Helper()
		if err := relay.Step(t.Context(), limit); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(kafka.values("t")["k"], " "); got != want {
			t.Errorf("published %s, want %s", got, want)
		}
		left, err := outbox.Waiting(t.Context(), db, 100)
		if err != nil || len(left) != waiting {
			t.Errorf("%d events in the outbox, want %d: %v", len(left), waiting, err)
		}
	}
	emitAll(t, db, "k", 0, 3)
	step(2, 3, "0 1")
	relay.Crash()
	step(2, 3, "0 1 0 1")
	step(2, 1, "0 1 0 1 2")
	step(2, 0, "0 1 0 1 2")
}
