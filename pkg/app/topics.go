package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/internal/quiet"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/pkg/web"
)

// topics are the topics that a service needs.
type topics struct {
	kafka  kafka
	client *broker.Client
	svc    saga.Service
	log    *slog.Logger

	mu    sync.Mutex
	fault error // why they are not as they should be, as far as is known
}

func (k kafka) newTopics(client *broker.Client, svc saga.Service, log *slog.Logger) *topics {
	return &topics{kafka: k, client: client, svc: svc, log: log}
}

// ensure creates the topics as soon as Kafka can be reached, and warns of those that are weak. It returns when they
// exist or ctx ends.
func (t *topics) ensure(ctx context.Context) error {
	specs, err := t.kafka.topicSpecs(t.svc)
	if err != nil {
		return err
	}
	if t.kafka.createTopics && !t.create(ctx, specs) {
		return nil
	}
	t.warnOfWeak(ctx, specs)
	return nil
}

// create tries until all topics exist, and returns false when ctx ends before.
func (t *topics) create(ctx context.Context, specs []broker.TopicSpec) bool {
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = 5 * time.Second
	var faults quiet.Log
	for {
		err := t.client.EnsureTopics(ctx, specs)
		if ctx.Err() != nil {
			return false
		}
		t.mu.Lock()
		t.fault = err
		t.mu.Unlock()
		if err == nil {
			faults.Over(ctx, t.log, "", "topics ensured")
			return true
		}
		faults.Warn(ctx, t.log, "", "topics not ensured; trying again", "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// check is the readiness of the topics. While Kafka is away requests are served, and their events wait in the outbox.
func (t *topics) check(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, wrong := errors.AsType[*broker.TopicError](t.fault); wrong {
		return t.fault
	}
	return web.Degraded(t.fault)
}

// warnOfWeak logs a warning for each topic that is not as safe as it could be. That is an operator's to change, and not
// a reason not to work. A cluster that does not tell is one line.
func (t *topics) warnOfWeak(ctx context.Context, specs []broker.TopicSpec) {
	weak, err := t.client.WeakTopics(ctx, specs)
	if err != nil && ctx.Err() == nil {
		t.log.Warn("the topics' replication is not known", "error", err)
	}
	for _, w := range weak {
		t.log.Warn("a topic's replication is not as it should be", "topic", w.Topic, "has", w.Have, "want", w.Want, "command", w.Command)
	}
}

// consuming is the readiness of the consumer groups. While Kafka is away they cannot consume, and requests are served
// all the same.
func consuming(health *saga.Health, client *broker.Client) func(context.Context) error {
	return func(ctx context.Context) error {
		err := health.Check(ctx)
		if err != nil && client.Ping(ctx) != nil {
			return web.Degraded(err)
		}
		return err
	}
}
