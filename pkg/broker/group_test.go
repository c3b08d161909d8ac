package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// peer is a member of a group that commits what it polls. It stops before it gives up what leaves while gate is locked.
type peer struct {
	name string
	stop func()
	gate sync.Mutex

	mu       sync.Mutex
	session  *broker.Session
	records  []broker.Record
	leaving  []broker.TopicPartition
	sessions int
}

func join(t *testing.T, c *brokertest.Cluster, name string, cfg broker.GroupConfig) *peer {
	t.Helper()
	p := &peer{name: name}
	client := open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg.Heartbeat = 50 * time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("member", name)
	go func() { done <- client.Consume(ctx, cfg, p.work) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(p.stop)
	return p
}

func (p *peer) work(ctx context.Context, s *broker.Session) {
	p.mu.Lock()
	p.session = s
	p.sessions++
	p.mu.Unlock()
	for {
		polled, err := s.Poll(ctx, 100)
		if err != nil {
			return
		}
		next := map[broker.TopicPartition]int64{}
		for _, r := range polled.Records {
			next[broker.TopicPartition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
		}
		for last := time.Now().Add(15 * time.Second); s.Commit(next) != nil && time.Now().Before(last); { // a coordinator may be on its way; or they come again
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
		p.mu.Lock()
		p.records = append(p.records, polled.Records...)
		p.leaving = append(p.leaving, polled.Leaving...)
		p.mu.Unlock()
		p.gate.Lock()
		p.gate.Unlock() //nolint:staticcheck // a gate, nothing to do behind it
	}
}

func (p *peer) held() []broker.TopicPartition {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	return broker.Held(s)
}

func (p *peer) has(topic string, n int) bool {
	count := 0
	for _, tp := range p.held() {
		if tp.Topic == topic {
			count++
		}
	}
	return count == n
}

func (p *peer) values(topic string) (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.records {
		if r.Topic == topic {
			out = append(out, string(r.Value))
		}
	}
	return out
}

func (p *peer) left() []broker.TopicPartition {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.leaving)
}

// eventually waits for a condition and returns how long that took.
func eventually(t *testing.T, limit time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Since(begun) > limit {
			t.Fatalf("not within %s: %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(begun)
}

// admin does to a cluster what operators do.
func admin(t *testing.T, c *brokertest.Cluster, req kmsg.Request) kmsg.Response {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	res, err := client.Request(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func deleteTopic(t *testing.T, c *brokertest.Cluster, topic string) {
	t.Helper()
	req := kmsg.NewDeleteTopicsRequest()
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.Topic = &topic
	req.Topics, req.TopicNames, req.TimeoutMillis = []kmsg.DeleteTopicsRequestTopic{one}, []string{topic}, 5000
	for _, r := range admin(t, c, &req).(*kmsg.DeleteTopicsResponse).Topics {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

func growTopic(t *testing.T, c *brokertest.Cluster, topic string, partitions int32) {
	t.Helper()
	req := kmsg.NewCreatePartitionsRequest()
	one := kmsg.NewCreatePartitionsRequestTopic()
	one.Topic, one.Count = topic, partitions
	req.Topics, req.TimeoutMillis = []kmsg.CreatePartitionsRequestTopic{one}, 5000
	for _, r := range admin(t, c, &req).(*kmsg.CreatePartitionsResponse).Topics {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			t.Fatal(err)
		}
	}
}

// purge deletes the records of a topic's first partition before an offset, as retention does.
func purge(t *testing.T, c *brokertest.Cluster, topic string, before int64) {
	t.Helper()
	req := kmsg.NewDeleteRecordsRequest()
	one := kmsg.NewDeleteRecordsRequestTopic()
	part := kmsg.NewDeleteRecordsRequestTopicPartition()
	part.Offset = before
	one.Topic, one.Partitions = topic, []kmsg.DeleteRecordsRequestTopicPartition{part}
	req.Topics, req.TimeoutMillis = []kmsg.DeleteRecordsRequestTopic{one}, 5000
	for _, r := range admin(t, c, &req).(*kmsg.DeleteRecordsResponse).Topics {
		for _, p := range r.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// put writes values, and again where a topic that was just made has no leader yet.
func put(t *testing.T, client *broker.Client, topic string, values ...string) {
	t.Helper()
	for _, v := range values {
		eventually(t, 10*time.Second, "produce to "+topic, func() bool {
			return client.Produce(t.Context(), []broker.Record{{Topic: topic, Key: []byte("k"), Value: []byte(v)}})[0] == nil
		})
	}
}

// One topic that is deleted, missing or made anew stops itself and no other.
func TestTopicsComeAndGo(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, stays, goes, later := open(t, c), c.Topic(t, 2), c.Topic(t, 2), brokertest.Name(t)+"-later"
		var mu sync.Mutex
		var state broker.GroupState
		p := join(t, c, "member", broker.GroupConfig{Group: brokertest.Name(t), Topics: []string{stays, goes, later}, State: func(s broker.GroupState) {
			mu.Lock()
			defer mu.Unlock()
			state = s
		}})
		missing := func(want ...string) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				return state.Member && slices.Equal(state.Missing, want)
			}
		}
		put(t, client, stays, "1")
		put(t, client, goes, "old-1", "old-2", "old-3")
		eventually(t, 10*time.Second, "the topics that there are", func() bool { return len(p.values(stays)) == 1 && len(p.values(goes)) == 3 })
		eventually(t, 10*time.Second, "the missing topic is told", missing(later))

		c.CreateTopic(t, later, 3)
		put(t, client, later, "first")
		eventually(t, 8*time.Second, "a topic made later, from its first record", func() bool { return slices.Equal(p.values(later), []string{"first"}) })

		deleteTopic(t, c, goes)
		eventually(t, 10*time.Second, "the deleted topic is told", missing(goes))
		eventually(t, 10*time.Second, "its partitions leave", func() bool { return p.has(goes, 0) && len(p.left()) == 2 })
		put(t, client, stays, "2")
		eventually(t, 5*time.Second, "the others go on", func() bool { return len(p.values(stays)) == 2 })

		c.CreateTopic(t, goes, 2)
		put(t, client, goes, "new")
		eventually(t, 10*time.Second, "a topic made anew, from its first record", func() bool { return slices.Contains(p.values(goes), "new") })
		eventually(t, 10*time.Second, "nothing is missing", missing())
		if p.sessions != 1 {
			t.Errorf("%d sessions, want one", p.sessions)
		}
	})
}

func TestPartitionsGrow(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		topic, group := c.Topic(t, 1), brokertest.Name(t)
		a := join(t, c, "a", broker.GroupConfig{Group: group, Topics: []string{topic}, Start: broker.FromNow()})
		b := join(t, c, "b", broker.GroupConfig{Group: group, Topics: []string{topic}, Start: broker.FromNow()})
		eventually(t, 10*time.Second, "one partition at one of them", func() bool { return len(a.held())+len(b.held()) == 1 })
		growTopic(t, c, topic, 4)
		eventually(t, 6*time.Second, "two partitions each", func() bool { return a.has(topic, 2) && b.has(topic, 2) })
		client := open(t, c)
		for i := range 40 {
			eventually(t, 10*time.Second, "produce", func() bool {
				return client.Produce(t.Context(), []broker.Record{{Topic: topic, Key: fmt.Append(nil, i), Value: []byte("v")}})[0] == nil
			})
		}
		eventually(t, 5*time.Second, "the records of all", func() bool { return len(a.values(topic))+len(b.values(topic)) == 40 })
	})
}

// A member that joins takes its share from the others, and nothing else of theirs stops. What leaves belongs to the old
// member until it has polled again.
func TestCooperativeJoin(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		topic, group := c.Topic(t, 4), brokertest.Name(t)
		a := join(t, c, "a", broker.GroupConfig{Group: group, Topics: []string{topic}})
		eventually(t, 10*time.Second, "all at the first", func() bool { return a.has(topic, 4) })
		client := open(t, c)
		a.gate.Lock()
		unlock := sync.OnceFunc(a.gate.Unlock)
		defer unlock()
		b := join(t, c, "b", broker.GroupConfig{Group: group, Topics: []string{topic}})
		eventually(t, 10*time.Second, "two of them leave", func() bool { return a.has(topic, 2) })
		kept := a.held()
		// The gate is shut: the first member does not poll. The second has joined and has nothing yet.
		eventually(t, 10*time.Second, "the second is a member", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.session != nil })
		if got := b.held(); len(got) != 0 {
			t.Errorf("the second has %v while the first has not given anything up", got)
		}
		unlock()
		took := eventually(t, 10*time.Second, "two each", func() bool { return a.has(topic, 2) && b.has(topic, 2) })
		if took > 3*time.Second {
			t.Errorf("the hand-over took %s", took)
		}
		if left := a.left(); len(left) != 2 {
			t.Errorf("%v left, want two partitions", left)
		}
		if now := a.held(); !slices.Equal(now, kept) {
			t.Errorf("the first kept %v, has %v", kept, now)
		}
		for _, tp := range kept {
			if slices.Contains(a.left(), tp) || slices.Contains(b.held(), tp) {
				t.Errorf("%v was to stay", tp)
			}
		}
		produce(t, client, records(topic, 20, 5))
		eventually(t, 5*time.Second, "all records once", func() bool { return len(a.values(topic))+len(b.values(topic)) == 100 })
		if a.sessions != 1 || b.sessions != 1 {
			t.Errorf("%d and %d sessions, want one each", a.sessions, b.sessions)
		}
	})
}

// Who starts under the instance id of a member that has not left gets its partitions at once; the other is told and
// goes on without the id.
func TestStaticMember(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		topic, group := c.Topic(t, 4), brokertest.Name(t)
		cfg := broker.GroupConfig{Group: group, Topics: []string{topic}, SessionTimeout: 30 * time.Second}
		named := func(id string) broker.GroupConfig { n := cfg; n.InstanceID = id; return n }
		other := join(t, c, "other", named("one"))
		eventually(t, 10*time.Second, "all", func() bool { return other.has(topic, 4) })
		old := join(t, c, "old", named("two"))
		eventually(t, 10*time.Second, "two each", func() bool { return other.has(topic, 2) && old.has(topic, 2) })
		before, kept := old.held(), other.held()

		again := join(t, c, "again", named("two"))
		took := eventually(t, 10*time.Second, "the same partitions", func() bool { return slices.Equal(again.held(), before) })
		if took > 3*time.Second {
			t.Errorf("the partitions came after %s", took)
		}
		eventually(t, 10*time.Second, "the old one goes on without the id", func() bool { return len(old.held()) > 0 })
		for _, tp := range kept {
			if slices.Contains(again.held(), tp) {
				t.Errorf("%v at two members", tp)
			}
		}
	})
}

// A group in a rolling upgrade from members that kafka-go's ConsumerGroup keeps.
func TestBesideOldMembers(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		topic, name := c.Topic(t, 4), brokertest.Name(t)
		group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
			ID: name, Brokers: c.Brokers(), Topics: []string{topic}, GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}},
			StartOffset: kafka.FirstOffset, HeartbeatInterval: 50 * time.Millisecond, SessionTimeout: 6 * time.Second, JoinGroupBackoff: 50 * time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var theirs []int
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				gen, err := group.Next(ctx)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					continue
				}
				mu.Lock()
				theirs = nil
				for _, a := range gen.Assignments[topic] {
					theirs = append(theirs, a.ID)
				}
				mu.Unlock()
				gen.Start(func(ctx context.Context) { <-ctx.Done() })
			}
		}()
		leave := sync.OnceFunc(func() { cancel(); _ = group.Close(); <-ended })
		defer leave()
		share := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(theirs)
		}
		eventually(t, 15*time.Second, "all at the old member", func() bool { return len(share()) == 4 })
		a := join(t, c, "a", broker.GroupConfig{Group: name, Topics: []string{topic}})
		eventually(t, 15*time.Second, "two each", func() bool { return len(share()) == 2 && a.has(topic, 2) })
		for _, tp := range a.held() {
			if slices.Contains(share(), tp.Partition) {
				t.Errorf("partition %d at both", tp.Partition)
			}
		}
		b := join(t, c, "b", broker.GroupConfig{Group: name, Topics: []string{topic}})
		eventually(t, 15*time.Second, "all three have some", func() bool {
			return len(share())+len(a.held())+len(b.held()) == 4 && len(share()) > 0 && len(a.held()) > 0 && len(b.held()) > 0
		})
		leave()
		eventually(t, 15*time.Second, "two each of the new ones", func() bool { return a.has(topic, 2) && b.has(topic, 2) })
	})
}

// A member that does not come back within the rebalance timeout loses what was to leave, and cannot commit it any more.
func TestZombieCannotCommit(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		topic, group := c.Topic(t, 2), brokertest.Name(t)
		cfg := broker.GroupConfig{Group: group, Topics: []string{topic}, RebalanceTimeout: 2 * time.Second}
		a := join(t, c, "a", cfg)
		eventually(t, 10*time.Second, "all at the first", func() bool { return a.has(topic, 2) })
		client := open(t, c)
		produce(t, client, records(topic, 10, 1))
		eventually(t, 5*time.Second, "the records", func() bool { return len(a.values(topic)) == 10 })
		a.gate.Lock()
		defer a.gate.Unlock()
		put(t, client, topic, "wakes it") // it polls this one, and then stands at the gate
		b := join(t, c, "b", cfg)
		eventually(t, 15*time.Second, "the second's share", func() bool { return b.has(topic, 1) })
		lost, kept := b.held()[0], a.held()[0]
		a.mu.Lock()
		s := a.session
		a.mu.Unlock()
		before := broker.Committed(t, client, group, lost)
		if err := s.Commit(map[broker.TopicPartition]int64{lost: 0, kept: 1}); err != nil {
			t.Error(err)
		}
		if got := broker.Committed(t, client, group, lost); got != before || got < 1 {
			t.Errorf("the partition that was lost stands at %d, want %d", got, before)
		}
		if got := broker.Committed(t, client, group, kept); got != 1 {
			t.Errorf("the partition that stayed stands at %d, want 1", got)
		}
	})
}

// A topic that is deleted and made anew faster than a member looks is consumed again from its first record.
func TestTopicMadeAnewAtOnce(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		p := join(t, c, "member", broker.GroupConfig{Group: brokertest.Name(t), Topics: []string{topic}})
		put(t, client, topic, "1", "2", "3")
		eventually(t, 10*time.Second, "the old records", func() bool { return len(p.values(topic)) == 3 })
		deleteTopic(t, c, topic)
		eventually(t, 10*time.Second, "the topic is there again", func() bool {
			errs := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: topic, Partitions: 1}})
			return errs == nil
		})
		put(t, client, topic, "new")
		eventually(t, 15*time.Second, "the new record", func() bool { return slices.Equal(p.values(topic), []string{"1", "2", "3", "new"}) })
	})
}

// A restart of the broker does not end the membership: the records of after it come soon, and no partition leaves on
// the way.
func TestMembershipOutlivesBroker(t *testing.T) {
	c := brokertest.Own(t)
	client, topic, group := open(t, c), c.Topic(t, 2), brokertest.Name(t)
	p := join(t, c, "member", broker.GroupConfig{Group: group, Topics: []string{topic}, SessionTimeout: 30 * time.Second})
	put(t, client, topic, "before")
	eventually(t, 10*time.Second, "a record", func() bool { return len(p.values(topic)) == 1 })
	c.Restart(t)
	put(t, client, topic, "after")
	took := eventually(t, 20*time.Second, "the record of after the restart", func() bool { return slices.Contains(p.values(topic), "after") })
	t.Logf("%s after the first record that the broker took", took)
	if took > 2*time.Second {
		t.Errorf("the group stood still for %s after the broker answered", took)
	}
	if p.sessions != 1 {
		t.Errorf("%d sessions, want one", p.sessions)
	}
}

// Nothing goes on after Consume has returned, whatever it was doing.
func TestConsumeEndsWhatItBegan(t *testing.T) {
	c := brokertest.Fake(t)
	topic := c.Topic(t, 3)
	ignore := goleak.IgnoreCurrent()
	client, err := broker.Open(broker.Config{Brokers: c.Brokers(), ClientID: "ends"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	err = client.Consume(ctx, broker.GroupConfig{Group: brokertest.Name(t), Topics: []string{topic, "missing"}, MaxWait: 100 * time.Millisecond},
		func(ctx context.Context, s *broker.Session) {
			once.Do(func() {
				for len(broker.Held(s)) < 3 {
					wait, stop := context.WithTimeout(ctx, 10*time.Millisecond)
					_, _ = s.Poll(wait, 0)
					stop()
				}
			})
			cancel()
		})
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	goleak.VerifyNone(t, ignore)
}
