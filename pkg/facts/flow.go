package facts

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/saga"
)

// Flow is how far a service is with what it was told and what it has to tell. Ages are those of what the events tell,
// not of their places in Kafka, where an event may come long after its cause. So, of all services together: what
// happened before the oldest of both has been told, and heard by all who listen. An event is dated within the
// transaction of its cause, after that began: who relies on this leaves room for the longest transaction.
type Flow struct {
	Unpublished   int   `json:"unpublished" doc:"events that wait to be published"`
	UnpublishedMs int64 `json:"unpublishedMs" doc:"for how long the oldest of them has waited"`
	UnhandledMs   int64 `json:"unhandledMs" doc:"how long ago that happened which the oldest message tells that is not handled yet; 0: there is none"`
}

// ReadFlow looks at the outbox first and then at the service's consumer groups, by name with their topics. It costs a
// statement, and for each group two or three requests to Kafka; when Kafka is away it fails.
func ReadFlow(ctx context.Context, db *pgxpool.Pool, client *broker.Client, groups map[string][]string) (Flow, error) {
	stats, err := outbox.ReadStats(ctx, db)
	if err != nil {
		return Flow{}, err
	}
	f := Flow{Unpublished: stats.Depth, UnpublishedMs: stats.OldestAge.Milliseconds()}
	for group, topics := range groups {
		waiting, err := client.Unhandled(ctx, group, topics...)
		if err != nil {
			return Flow{}, fmt.Errorf("ask how far the group %s is: %w", group, err)
		}
		for _, r := range waiting {
			at := saga.TimeOf(r)
			if r.Time.Before(at) { // by a clock that is ahead: it cannot tell what was to come
				at = r.Time
			}
			f.UnhandledMs = max(f.UnhandledMs, time.Since(at).Milliseconds(), 1)
		}
	}
	return f, nil
}
