package broker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

func TestMain(m *testing.M) { brokertest.Main(m) }

func open(t *testing.T, c *brokertest.Cluster) *broker.Client {
	t.Helper()
	client, err := broker.Open(broker.Config{Brokers: c.Brokers(), ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// records makes n records for each key, numbered.
func records(topic string, keys, n int) []broker.Record {
	var out []broker.Record
	for i := range n {
		for k := range keys {
			out = append(out, broker.Record{
				Topic: topic, Key: fmt.Appendf(nil, "key-%d", k), Value: fmt.Appendf(nil, "%d", i),
				Headers: []broker.Header{{Key: "h", Value: []byte("v")}},
			})
		}
	}
	return out
}

// produce does as the relay does: what was not acknowledged goes again, in order.
func produce(t *testing.T, client *broker.Client, recs []broker.Record) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		var failed []broker.Record
		var last error
		for i, err := range client.Produce(t.Context(), recs) {
			if err != nil {
				failed, last = append(failed, recs[i]), err
			}
		}
		if len(failed) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records are not taken: %v", len(failed), last)
		}
		recs = failed
	}
}

// log collects what consumers saw, by key.
type log struct {
	mu     sync.Mutex
	values map[string][]string
	count  int
	grown  chan struct{}
}

func newLog() *log { return &log{values: map[string][]string{}, grown: make(chan struct{}, 1)} }

func (l *log) add(recs []broker.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range recs {
		l.values[string(r.Key)] = append(l.values[string(r.Key)], string(r.Value))
		l.count++
	}
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

// wait returns when done says so of what was seen.
func (l *log) wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		l.mu.Lock()
		ok := done()
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-l.grown:
		case <-deadline:
			t.Fatalf("%s: not in time; saw %d records", what, l.count)
		}
	}
}

// consume runs a member of the group until stop is called.
func consume(t *testing.T, client *broker.Client, group, topic string, seen *log) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- client.Consume(ctx, broker.GroupConfig{Group: group, Topics: []string{topic}, Heartbeat: 50 * time.Millisecond, SessionTimeout: 6 * time.Second},
			func(ctx context.Context, s *broker.Session) {
				for {
					polled, err := s.Poll(ctx, 100)
					if err != nil {
						return
					}
					recs := polled.Records
					seen.add(recs)
					next := map[broker.TopicPartition]int64{}
					for _, r := range recs {
						next[broker.TopicPartition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
					}
					if err := s.Commit(next); err != nil {
						return
					}
				}
			})
	}()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("consume: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func TestOrderPerKey(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 4)
		seen := newLog()
		consume(t, client, brokertest.Name(t), topic, seen)
		for chunk := range slices.Chunk(records(topic, 10, 100), 170) {
			produce(t, client, chunk)
		}
		seen.wait(t, "all records", func() bool { return seen.count >= 1000 })
		for key, values := range seen.values {
			for i, v := range values {
				if v != fmt.Sprint(i) {
					t.Fatalf("%s: record %d is %s; want them in the order they were produced: %v", key, i, v, values)
				}
			}
		}
	})
}

// Two members share the partitions; one leaves, and what it had not committed goes to the other.
func TestRebalanceLosesNothing(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 4), brokertest.Name(t)
		first, second := newLog(), newLog()
		leave := consume(t, client, group, topic, first)
		produce(t, client, records(topic, 20, 10))
		first.wait(t, "the first member alone", func() bool { return first.count >= 200 })

		consume(t, open(t, c), group, topic, second)
		stopProducing := make(chan struct{})
		produced := make(chan int)
		go func() {
			n := 10
			for ; ; n++ {
				select {
				case <-stopProducing:
					produced <- n
					return
				default:
				}
				for _, err := range client.Produce(context.Background(), numbered(topic, 20, n)) {
					if err != nil {
						t.Errorf("produce: %v", err)
					}
				}
			}
		}()
		second.wait(t, "the second member's share", func() bool { return second.count > 0 })
		leave()
		before := 0
		second.wait(t, "the whole share", func() bool { before = max(before, len(second.values)); return before == 20 })
		close(stopProducing)
		n := <-produced
		all := func() map[string]map[string]bool {
			got := map[string]map[string]bool{}
			for _, l := range []*log{first, second} {
				for key, values := range l.values {
					if got[key] == nil {
						got[key] = map[string]bool{}
					}
					for _, v := range values {
						got[key][v] = true
					}
				}
			}
			return got
		}
		second.wait(t, "every record at one of the two", func() bool {
			got := all()
			for k := range 20 {
				if len(got[fmt.Sprintf("key-%d", k)]) < n {
					return false
				}
			}
			return true
		})
	})
}

func numbered(topic string, keys, i int) []broker.Record {
	var out []broker.Record
	for k := range keys {
		out = append(out, broker.Record{Topic: topic, Key: fmt.Appendf(nil, "key-%d", k), Value: fmt.Appendf(nil, "%d", i)})
	}
	return out
}

// A group that starts before its topic exists reads it as soon as it does.
func TestGroupBeforeItsTopic(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, seen := open(t, c), brokertest.Name(t), newLog()
		consume(t, client, brokertest.Name(t), topic, seen)
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: topic, Partitions: 3}}); err != nil {
			t.Fatal(err)
		}
		produce(t, client, records(topic, 5, 10))
		seen.wait(t, "records of the new topic", func() bool { return seen.count >= 50 })
	})
}

// A broker that goes away and comes back loses nothing that it acknowledged, and consumers go on where they were.
func TestBrokerRestart(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 2)
		seen := newLog()
		consume(t, client, brokertest.Name(t), topic, seen)
		produce(t, client, records(topic, 5, 10))
		seen.wait(t, "records before the restart", func() bool { return seen.count >= 50 })
		c.Restart(t)
		produce(t, client, records(topic, 5, 20)[50:])
		seen.wait(t, "records after the restart", func() bool {
			for k := range 5 {
				if values := seen.values[fmt.Sprintf("key-%d", k)]; !slices.Contains(values, "19") {
					return false
				}
			}
			return true
		})
		for key, values := range seen.values {
			got := slices.Compact(slices.Clone(values))
			for i := range 20 {
				if !slices.Contains(got, fmt.Sprint(i)) {
					t.Errorf("%s: record %d was lost", key, i)
				}
			}
		}
	})
}

// Java's console producer and ours must agree on a key's partition: the values are those of Kafka's own
// Utils.toPositive(Utils.murmur2(key)) % 12.
func TestPartitionerIsJavas(t *testing.T) {
	c := brokertest.Fake(t)
	client, topic := open(t, c), c.Topic(t, 12)
	want := map[string]int{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "abc": 479470107}
	var recs []broker.Record
	for key := range want {
		recs = append(recs, broker.Record{Topic: topic, Key: []byte(key), Value: []byte("x")})
	}
	produce(t, client, recs)
	if err := client.Scan(t.Context(), topic, func(r broker.Record) error {
		if p := int(uint32(want[string(r.Key)])&0x7fffffff) % 12; p != r.Partition {
			t.Errorf("key %q is in partition %d, Java puts it in %d", r.Key, r.Partition, p)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// More than a partition takes in one batch goes in several, in order.
func TestLargeBatchesKeepOrder(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		var recs []broker.Record
		for i := range 40 {
			value := make([]byte, 100<<10)
			value[0] = byte(i)
			recs = append(recs, broker.Record{Topic: topic, Key: []byte("k"), Value: value})
		}
		produce(t, client, recs)
		i := 0
		if err := client.Scan(t.Context(), topic, func(r broker.Record) error {
			if int(r.Value[0]) != i {
				t.Fatalf("record %d of the log is number %d", i, r.Value[0])
			}
			i++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if i != 40 {
			t.Fatalf("the log has %d records, want 40", i)
		}
	})
}

func TestProduceToNoTopic(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic := open(t, c), c.Topic(t, 1)
		errs := client.Produce(t.Context(), []broker.Record{{Topic: "no." + topic, Value: []byte("x")}, {Topic: topic, Value: []byte("x")}})
		if errs[0] == nil || errs[1] != nil {
			t.Fatalf("errors %v; want one for the topic that does not exist, and none for the other", errs)
		}
	})
}

func TestEnsureTopics(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, name := open(t, c), brokertest.Name(t)
		for range 2 { // the second time it is there
			if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: name, Partitions: 3, Config: map[string]string{"retention.ms": "1000"}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.EnsureTopics(t.Context(), []broker.TopicSpec{{Name: name, Partitions: 5}}); err == nil {
			t.Error("a topic with too few partitions is no error")
		}
	})
}
