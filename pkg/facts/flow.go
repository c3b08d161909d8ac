package facts

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
)

// Flow is how far a service is with what it was told and what it has to tell. Whatever happened longer ago than both ages together is told and
// heard: what the services hold of it then is what they will hold, until something else happens.
type Flow struct {
	Unpublished   int   `json:"unpublished" doc:"events that wait to be published"`
	UnpublishedMs int64 `json:"unpublishedMs" doc:"for how long the oldest of them has waited"`
	UnhandledMs   int64 `json:"unhandledMs" doc:"how long ago the oldest message came that is not handled yet; 0: there is none"`
}

// ReadFlow looks at the outbox first and then at the service's consumer groups, by name with their topics. It costs a statement, and for each group
// two or three requests to Kafka; when Kafka is away it fails.
func ReadFlow(ctx context.Context, db *pgxpool.Pool, client *broker.Client, groups map[string][]string) (Flow, error) {
	stats, err := outbox.ReadStats(ctx, db)
	if err != nil {
		return Flow{}, err
	}
	f := Flow{Unpublished: stats.Depth, UnpublishedMs: stats.OldestAge.Milliseconds()}
	for group, topics := range groups {
		at, err := client.Oldest(ctx, group, topics...)
		if err != nil {
			return Flow{}, fmt.Errorf("ask how far the group %s is: %w", group, err)
		}
		if !at.IsZero() {
			f.UnhandledMs = max(f.UnhandledMs, time.Since(at).Milliseconds(), 1)
		}
	}
	return f, nil
}
