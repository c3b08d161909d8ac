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

// ensure creates the topics as soon as Kafka can be reached. It returns when they exist or ctx ends.
func (t *topics) ensure(ctx context.Context) error {
	if !t.kafka.createTopics {
		return nil
	}
	specs, err := saga.Topics(t.kafka.partitions, t.svc)
	if err != nil {
		return err
	}
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = 5 * time.Second
	var faults quiet.Log
	for {
		err := t.client.EnsureTopics(ctx, specs)
		if ctx.Err() != nil {
			return nil
		}
		t.mu.Lock()
		t.fault = err
		t.mu.Unlock()
		if err == nil {
			faults.Over(ctx, t.log, "", "topics ensured")
			return nil
		}
		faults.Warn(ctx, t.log, "", "topics not ensured; trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
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
