package saga_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/outbox"
	"github.com/converge-dev/converge/pkg/saga"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// bundle is a service on a broker, with topics of its own.
type bundle struct {
	t        *testing.T
	db       *pgxpool.Pool
	client   *broker.Client
	cluster  *brokertest.Cluster
	question saga.Topic[asked]
	answer   saga.Topic[answered]
	svc      saga.Service
}

func setup(t *testing.T, c *brokertest.Cluster) *bundle {
	t.Helper()
	b := &bundle{t: t, db: database(t), client: connect(t, c), cluster: c}
	b.question, b.answer = saga.NewTopic[asked](c.Topic(t, 4)), saga.NewTopic[answered](c.Topic(t, 4))
	name := strings.ToLower(brokertest.Name(t))
	c.CreateTopic(t, saga.DeadLetterTopic(name), 1)
	b.svc = saga.Service{Name: name, Routes: []saga.Route{saga.On(b.question, func(ctx context.Context, tx pgx.Tx, m saga.Msg[asked]) ([]saga.Out, error) {
		if _, err := work(ctx, tx, m); err != nil {
			return nil, err
		}
		return saga.Emit(m, b.answer, answered{m.Data.N}), nil
	}, b.answer)}}
	return b
}

func connect(t *testing.T, c *brokertest.Cluster) *broker.Client {
	t.Helper()
	client, err := broker.Open(broker.Config{Brokers: c.Brokers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// instance runs the service until stop is called, which returns how long the stop took.
func (b *bundle) instance() (stop func() time.Duration) {
	b.t.Helper()
	client := connect(b.t, b.cluster)
	relay := outbox.NewRelay(b.db, client, outbox.Config{Poll: 100 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := saga.Run(ctx, b.svc, saga.Config{DB: b.db, Broker: client, Relay: relay, MaxBatch: 20,
			Group: broker.GroupConfig{Heartbeat: 50 * time.Millisecond, SessionTimeout: 3 * time.Second}}); err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
	parts.Go(func() {
		if err := relay.Run(ctx); err != nil {
			b.t.Errorf("relay: %v", err)
		}
	})
	var once sync.Once
	var took time.Duration
	stop = func() time.Duration {
		once.Do(func() {
			began := time.Now()
			cancel()
			parts.Wait()
			took = time.Since(began)
		})
		return took
	}
	b.t.Cleanup(func() { stop() })
	return stop
}

// ask puts questions 1 to n of each key on the topic.
func (b *bundle) ask(keys, from, to int) {
	b.t.Helper()
	var recs []broker.Record
	for n := from; n <= to; n++ {
		for k := range keys {
			recs = append(recs, sagatestRecord(b.t, b.question, fmt.Sprint("k", k), n))
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(recs) > 0 { // a topic that was just created may refuse for a moment
		var failed []broker.Record
		for i, err := range b.client.Produce(b.t.Context(), recs) {
			if err != nil && time.Now().After(deadline) {
				b.t.Fatal(err)
			} else if err != nil {
				failed = append(failed, recs[i])
			}
		}
		recs = failed
	}
}

func sagatestRecord(t *testing.T, topic saga.Topic[asked], key string, n int) broker.Record {
	t.Helper()
	r, err := saga.Encode("test", saga.New(t.Context(), topic, key, asked{n}))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// await waits until as many effects are committed.
func (b *bundle) await(n int) {
	b.t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var have int
		if err := b.db.QueryRow(context.Background(), `SELECT count(*) FROM effects`).Scan(&have); err == nil && have >= n {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("%v effects in time, want %d", effects(b.t, b.db), n)
		}
	}
}

// check holds the effects and the answers to: each question once, in order per key.
func (b *bundle) check(keys, n int) {
	b.t.Helper()
	byKey := map[string][]string{}
	for _, e := range effects(b.t, b.db) {
		key, value, _ := strings.Cut(e, "=")
		byKey[key] = append(byKey[key], value)
	}
	answers := map[string][]string{}
	seen := map[string]bool{}
	if err := b.client.Scan(b.t.Context(), b.answer.Name(), func(r broker.Record) error {
		if id := r.Header("ce_id"); !seen[id] { // a relay may publish again; consumers recognise the id
			seen[id] = true
			m, err := saga.Decode(b.answer, r)
			if err != nil {
				return err
			}
			answers[m.Key] = append(answers[m.Key], fmt.Sprint(m.Data.N))
		}
		return nil
	}); err != nil {
		b.t.Fatal(err)
	}
	var want []string
	for i := 1; i <= n; i++ {
		want = append(want, fmt.Sprint(i))
	}
	for k := range keys {
		key := fmt.Sprint("k", k)
		if !slices.Equal(byKey[key], want) {
			b.t.Errorf("%s: effects %v, want 1 to %d, once and in order", key, byKey[key], n)
		}
		if !slices.Equal(answers[key], want) {
			b.t.Errorf("%s: answers %v, want 1 to %d, once and in order", key, answers[key], n)
		}
	}
}

// Instances come and go while messages flow; each message has its effect once, in order per key.
func TestRebalancesUnderLoad(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		b := setup(t, c)
		const keys = 10
		stop := b.instance()
		b.ask(keys, 1, 5)
		b.await(keys * 5)
		for round := range 4 {
			next := b.instance()
			b.ask(keys, 6+round*20, 25+round*20)
			stop()
			stop = next
		}
		b.await(keys * 85)
		stop() // flushes the outbox
		b.check(keys, 85)
	})
}

// The stop finishes what is in hand and leaves the group: the next instance takes over at once, not after the session
// timeout, and nothing comes twice.
func TestStopIsQuickAndClean(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		b := setup(t, c)
		stop := b.instance()
		b.ask(5, 1, 50)
		b.await(20)
		if took := stop(); took > 8*time.Second {
			t.Errorf("the stop took %s", took)
		}
		b.instance()
		b.ask(5, 51, 60)
		b.await(5 * 60)
	})
}

// The broker goes away in the middle of it and comes back.
func TestBrokerRestartUnderLoad(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		b := setup(t, c)
		stop := b.instance()
		b.ask(5, 1, 20)
		b.await(10)
		c.Restart(t)
		b.await(5 * 20)
		stop()
		b.check(5, 20)
	})
}

// A poison message on the real topic ends in the dead letter topic with its reason, and the partition goes on.
func TestPoisonOnTheWire(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		b := setup(t, c)
		b.instance()
		b.ask(3, 1, 5)
		poison := broker.Record{Topic: b.question.Name(), Key: []byte("k0"), Value: []byte("{not json")}
		for _, err := range b.client.Produce(t.Context(), []broker.Record{poison}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		b.ask(3, 6, 10)
		b.await(30)
		var letters []saga.DeadLetter
		deadline := time.Now().Add(30 * time.Second)
		for len(letters) == 0 && time.Now().Before(deadline) {
			if err := b.client.Scan(t.Context(), saga.DeadLetterTopic(b.svc.Name), func(r broker.Record) error {
				d, err := saga.ParseDeadLetter(r)
				letters = append(letters, d)
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		if len(letters) != 1 || string(letters[0].Record.Value) != "{not json" || !strings.Contains(letters[0].Reason, "invalid character") {
			t.Errorf("dead letters %+v", letters)
		}
	})
}
