package saga

import (
	"context"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/sabotage"
	"github.com/converge-dev/converge/pkg/outbox"
)

// bypassed keeps messages out of the outbox, if that is how this build is to be broken.
func bypassed(ctx context.Context, msgs []outbox.Message) []outbox.Message {
	if !sabotage.BypassOutbox {
		return msgs
	}
	AfterCommit(ctx, func() { sabotage.Publish(msgs) })
	return nil
}

// hasten commits what was received before it is handled, if that is how this build is to be broken.
func (c *consumer) hasten(s *broker.Session, p *progress, records []broker.Record, lanes *lanes) {
	if sabotage.EarlyCommit && len(records) > 0 {
		p.handled(records)
		c.commit(s, p.take(lanes))
	}
}
