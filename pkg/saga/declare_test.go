package saga_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/pkg/saga"
)

// An event whose topic the service does not declare is refused where it is written, and not found in the outbox years
// later.
func TestUndeclaredEvents(t *testing.T) {
	t.Parallel()
	db := database(t)
	svc := service(work)
	other := saga.NewTopic[asked]("other")
	ctx := saga.Declare(t.Context(), svc)
	publish := func(out saga.Out) error {
		return pg.InTx(ctx, db, func(tx pgx.Tx) error { return saga.Publish(ctx, tx, "svc", out) })
	}
	if err := publish(saga.New(ctx, answer, "a", answered{1})); err != nil {
		t.Errorf("an event that a route declares: %v", err)
	}
	const want = "svc does not declare the topic, which nobody would create; add it to Publishes of its saga.Service"
	undeclared := saga.New(ctx, other, "a", asked{1})
	var b pgx.Batch
	_, queued := saga.Queue(&b, nil, "svc", undeclared)
	_, encoded := saga.Encode("svc", undeclared)
	for name, err := range map[string]error{
		"Publish": publish(undeclared), "Queue": queued, "Encode": encoded,
		"Publish of what was made elsewhere":   publish(saga.New(t.Context(), other, "a", asked{1})),
		"Publish of what a message caused":     publish(saga.Emit(saga.Msg[asked]{Meta: saga.Meta{ID: [16]byte{1}}}, other, asked{1})[0]),
		"Publish of a topic that is only read": publish(saga.New(t.Context(), question, "a", asked{1})),
	} {
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "publish ") {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if waiting, err := outbox.Waiting(t.Context(), db, 10); err != nil || len(waiting) != 1 || b.Len() != 0 {
		t.Errorf("%d events in the outbox, %v, %d statements queued; want the declared one", len(waiting), err, b.Len())
	}
	svc.Publishes = []saga.AnyTopic{other}
	ctx = saga.Declare(ctx, svc)
	if err := publish(saga.New(ctx, other, "a", asked{1})); err != nil {
		t.Errorf("declared: %v", err)
	}
}

// What is missing is named, where it is missing: not by a panic in a goroutine.
func TestWithoutADatabaseOrABroker(t *testing.T) {
	t.Parallel()
	var pool *pgxpool.Pool
	var client *broker.Client
	for name, err := range map[string]error{
		"run svc: saga.Config has no DB":        saga.Run(t.Context(), service(work), saga.Config{}),
		"run svc: saga.Config has no DB: ":      saga.Run(t.Context(), service(work), saga.Config{DB: pool}),
		"run svc: saga.Config has no Broker":    saga.Run(t.Context(), service(work), saga.Config{DB: database(t), Broker: client}),
		"members of svc: saga.Config has no DB": saga.Deliver(t.Context(), service(work), saga.Config{DB: pool}, ask(t, "a", 1)),
		"the pool is nil; open one":             pg.InTx(t.Context(), pool, func(pgx.Tx) error { return nil }),
		"begin: there is no database":           pg.InTx(t.Context(), nil, func(pgx.Tx) error { return nil }),
		"NewRelay was given a nil pool":         outbox.NewRelay(nil, client, outbox.Config{}).Run(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
}
