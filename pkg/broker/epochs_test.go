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

// cuts collects what Truncated is told.
type cuts struct {
	mu   sync.Mutex
	seen [][2]int64
}

func (c *cuts) tell(_ context.Context, _ broker.TopicPartition, was, end int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, [2]int64{was, end})
	return nil
}

func (c *cuts) all() [][2]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

// putRange writes records with the values from..to-1 into a topic of one partition.
func putRange(t *testing.T, client *broker.Client, topic, kind string, from, to int) (values []string) {
	t.Helper()
	var recs []broker.Record
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprintf("%s %d", kind, i))
		recs = append(recs, broker.Record{Topic: topic, Key: []byte("k"), Value: []byte(values[len(values)-1])})
	}
	produce(t, client, recs)
	return values
}

// newEpoch begins a leader epoch.
func newEpoch(t *testing.T, c *brokertest.Cluster, client *broker.Client, topic string) {
	t.Helper()
	was := broker.Epoch(t, client, topic)
	brokertest.NewEpoch(t, c, topic)
	eventually(t, 20*time.Second, "a new leader epoch", func() bool { return broker.Epoch(t, client, topic) > was })
}

// A consumer whose position is 100 of a log that is cut to 60 and has grown to 150 before the consumer looks again goes
// on at 60.
func TestLogIsCutAndGrows(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
		tp := broker.TopicPartition{Topic: topic}
		var told cuts
		p := join(t, c, "member", broker.GroupConfig{Group: group, Topics: []string{topic}, SessionTimeout: 60 * time.Second, Truncated: told.tell})
		want := putRange(t, client, topic, "old", 0, 99)
		eventually(t, 10*time.Second, "the old records", func() bool { return len(p.values(topic)) == 99 })
		p.gate.Lock()
		open := sync.OnceFunc(p.gate.Unlock)
		defer open()
		want = append(want, putRange(t, client, topic, "old", 99, 100)...)
		eventually(t, 10*time.Second, "the last old record", func() bool { return len(p.values(topic)) == 100 })

		// A topic that is made anew has the first 60 records in the first epoch, as one that was cut.
		c.Remake(t, topic, 1)
		putRange(t, client, topic, "old", 0, 60)
		newEpoch(t, c, client, topic)
		want = append(want, putRange(t, client, topic, "new", 60, 150)...)
		open()
		eventually(t, 20*time.Second, "the last record", func() bool { return slices.Contains(p.values(topic), "new 149") })
		if got := p.values(topic); !slices.Equal(got, want) {
			t.Errorf("consumed %d records, want %d: from the 100th on %q", len(got), len(want), got[min(100, len(got)):])
		}
		got := told.all() // again where the coordinator did not take the new position at once
		if slices.ContainsFunc(got, func(cut [2]int64) bool { return cut != [2]int64{100, 60} }) || len(got) == 0 {
			t.Errorf("told of cuts %v, want that of 100 at 60", got)
		}
		eventually(t, 10*time.Second, "the end is committed", func() bool { return broker.Committed(t, client, group, tp) == 150 })
		if got, want := broker.CommittedEpoch(t, client, group, tp), broker.Epoch(t, client, topic); got != want {
			t.Errorf("committed with epoch %d, want %d", got, want)
		}
	})
}

// A committed offset is compared with the log before anything is fetched from it.
func TestCommittedEpochIsValidated(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
		tp := broker.TopicPartition{Topic: topic}
		first := broker.Epoch(t, client, topic)
		putRange(t, client, topic, "old", 0, 60)
		newEpoch(t, c, client, topic)
		want := putRange(t, client, topic, "new", 60, 150)
		eventually(t, 10*time.Second, "a commit", func() bool { return broker.CommitAt(client, group, tp, 100, first) })
		var told cuts
		p := join(t, c, "member", broker.GroupConfig{Group: group, Topics: []string{topic}, Truncated: told.tell})
		eventually(t, 20*time.Second, "the last record", func() bool { return slices.Contains(p.values(topic), "new 149") })
		if got := p.values(topic); !slices.Equal(got, want) {
			t.Errorf("consumed %d records, want %d: %q", len(got), len(want), got)
		}
		got := told.all() // again where the coordinator did not take the new position at once
		if slices.ContainsFunc(got, func(cut [2]int64) bool { return cut != [2]int64{100, 60} }) || len(got) == 0 {
			t.Errorf("told of cuts %v, want that of 100 at 60", got)
		}
	})
}

// A new leader epoch alone, whether something was written in it or not, skips nothing, repeats nothing and is no cut.
// Nor is it when a member begins from what another has committed in an older one.
func TestNewEpochAlone(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
		tp := broker.TopicPartition{Topic: topic}
		var told cuts
		cfg := broker.GroupConfig{Group: group, Topics: []string{topic}, SessionTimeout: 60 * time.Second, Truncated: told.tell}
		p := join(t, c, "member", cfg)
		want := putRange(t, client, topic, "first", 0, 10)
		eventually(t, 10*time.Second, "the first records", func() bool { return len(p.values(topic)) == 10 })
		newEpoch(t, c, client, topic)
		newEpoch(t, c, client, topic)
		want = append(want, putRange(t, client, topic, "second", 10, 20)...)
		eventually(t, 20*time.Second, "the second records", func() bool { return len(p.values(topic)) >= 20 })
		eventually(t, 20*time.Second, "the second commit", func() bool { return broker.Committed(t, client, group, tp) == 20 })
		if got := p.values(topic); !slices.Equal(got, want) {
			t.Errorf("consumed %q, want %q", got, want)
		}
		p.stop()
		newEpoch(t, c, client, topic)
		p = join(t, c, "other", cfg)
		want = putRange(t, client, topic, "third", 20, 30)
		eventually(t, 20*time.Second, "the third records", func() bool { return slices.Contains(p.values(topic), "third 29") })
		if got := p.values(topic); !slices.Equal(got, want) {
			t.Errorf("consumed %q, want %q", got, want)
		}
		if got := told.all(); len(got) > 0 {
			t.Errorf("told of cuts %v, want none", got)
		}
	})
}

// A topic that was made anew and has grown beyond the position is read from its beginning: its leader's epoch is older
// than the last record's.
func TestTopicMadeAnewGrows(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
		newEpoch(t, c, client, topic)
		p := join(t, c, "member", broker.GroupConfig{Group: group, Topics: []string{topic}, SessionTimeout: 60 * time.Second})
		want := putRange(t, client, topic, "old", 0, 3)
		eventually(t, 10*time.Second, "most old records", func() bool { return len(p.values(topic)) == 3 })
		p.gate.Lock()
		open := sync.OnceFunc(p.gate.Unlock)
		defer open()
		want = append(want, putRange(t, client, topic, "old", 3, 4)...)
		eventually(t, 10*time.Second, "the old records", func() bool { return len(p.values(topic)) == 4 })
		c.Remake(t, topic, 1)
		want = append(want, putRange(t, client, topic, "new", 0, 10)...)
		open()
		eventually(t, 20*time.Second, "the new records", func() bool { return slices.Contains(p.values(topic), "new 9") })
		if got := p.values(topic); !slices.Equal(got, want) {
			t.Errorf("consumed %q, want %q", got, want)
		}
	})
}

// As long as leaders stay, nobody asks for epochs.
func TestEpochsCostNothing(t *testing.T) {
	const offsetForLeaderEpoch = 23
	c := brokertest.Fake(t)
	client, topic := open(t, c), c.Topic(t, 1)
	asked := brokertest.Count(t, c, offsetForLeaderEpoch)
	p := join(t, c, "member", broker.GroupConfig{Group: brokertest.Name(t), Topics: []string{topic}})
	for i := range 20 {
		putRange(t, client, topic, "r", i, i+1)
		eventually(t, 10*time.Second, "the record", func() bool { return len(p.values(topic)) == i+1 })
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}
	newEpoch(t, c, client, topic)
	putRange(t, client, topic, "r", 20, 21)
	eventually(t, 10*time.Second, "the record of the new epoch", func() bool { return len(p.values(topic)) == 21 })
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times after a new epoch, want once", n)
	}
}
