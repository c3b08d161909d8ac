package broker_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/testkit/brokertest"
)

// Where a group begins in a partition whose log holds the records 2 to 4 of five.
func TestPositions(t *testing.T) {
	t0 := time.Now().Add(-10 * 24 * time.Hour).Truncate(time.Millisecond)
	for name, tc := range map[string]struct {
		committed int64 // -1: none
		floor     int64 // -1: none
		start     func(broker.GroupConfig) broker.StartAt
		want      []string
		truncated bool
	}{
		"first":                     {committed: -1, floor: -1, want: []string{"2", "3", "4", "5"}},
		"from now":                  {committed: -1, floor: -1, start: func(broker.GroupConfig) broker.StartAt { return broker.FromNow() }, want: []string{"5"}},
		"from a time":               {committed: -1, floor: -1, start: func(broker.GroupConfig) broker.StartAt { return broker.FromTime(t0.Add(3 * time.Hour)) }, want: []string{"3", "4", "5"}},
		"floor":                     {committed: -1, floor: 4, start: func(broker.GroupConfig) broker.StartAt { return broker.FromNow() }, want: []string{"4", "5"}},
		"floor below the start":     {committed: -1, floor: 1, want: []string{"2", "3", "4", "5"}},
		"floor above the end":       {committed: -1, floor: 9, want: []string{"2", "3", "4", "5"}, truncated: true},
		"committed":                 {committed: 3, floor: 4, want: []string{"3", "4", "5"}},
		"committed below the start": {committed: 1, floor: 4, want: []string{"2", "3", "4", "5"}},
		"committed above the end":   {committed: 9, floor: -1, want: []string{"5"}, truncated: true}, // the records are 10 days old
	} {
		t.Run(name, func(t *testing.T) {
			brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
				client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
				tp := broker.TopicPartition{Topic: topic}
				var recs []broker.Record
				for i, v := range []string{"0", "1", "2", "3", "4"} {
					recs = append(recs, broker.Record{Topic: topic, Key: []byte("k"), Value: []byte(v), Time: t0.Add(time.Duration(i) * time.Hour)})
				}
				produce(t, client, recs)
				purge(t, c, topic, 2)
				if tc.committed >= 0 {
					if err := client.CommitFor(t.Context(), group, map[broker.TopicPartition]int64{tp: tc.committed}); err != nil {
						t.Fatal(err)
					}
				}
				var mu sync.Mutex
				var cuts []int64
				cfg := broker.GroupConfig{Group: group, Topics: []string{topic}, Truncated: func(_ context.Context, at broker.TopicPartition, was, end int64) error {
					mu.Lock()
					defer mu.Unlock()
					if at != tp || end != 5 {
						t.Errorf("cut %v, end %d", at, end)
					}
					cuts = append(cuts, was)
					return nil
				}}
				if tc.floor >= 0 {
					cfg.Floor = func(context.Context) (map[broker.TopicPartition]int64, error) {
						return map[broker.TopicPartition]int64{tp: tc.floor}, nil
					}
				}
				if tc.start != nil {
					cfg.Start = tc.start(cfg)
				}
				p := join(t, c, "member", cfg)
				if slices.Equal(tc.want, []string{"5"}) { // where it begins must be settled before
					eventually(t, 10*time.Second, "the position is committed", func() bool { return broker.Committed(t, client, group, tp) == 5 })
				}
				if tc.truncated {
					eventually(t, 10*time.Second, "the cut is told", func() bool { mu.Lock(); defer mu.Unlock(); return len(cuts) > 0 })
				}
				put(t, client, topic, "5")
				eventually(t, 10*time.Second, "the last record", func() bool { return slices.Contains(p.values(topic), "5") })
				if got := p.values(topic); !slices.Equal(got, tc.want) {
					t.Errorf("consumed %v, want %v", got, tc.want)
				}
				mu.Lock()
				defer mu.Unlock()
				if cut := max(tc.committed, tc.floor); tc.truncated != (len(cuts) > 0) || tc.truncated && cuts[0] != cut {
					t.Errorf("told of cuts at %v, want one at %d: %v", cuts, cut, tc.truncated)
				}
			})
		})
	}
}

// The lag grows while the consumer does not come back from a batch, in records and in seconds, and ends when it does.
func TestLagOfAStuckConsumer(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, c *brokertest.Cluster) {
		client, topic, group := open(t, c), c.Topic(t, 1), brokertest.Name(t)
		tp := broker.TopicPartition{Topic: topic}
		p := join(t, c, "member", broker.GroupConfig{Group: group, Topics: []string{topic}})
		eventually(t, 10*time.Second, "the partition", func() bool { return p.has(topic, 1) })
		lag := func() broker.Lag { return p.session.Lag()[tp] }
		put(t, client, topic, "0")
		eventually(t, 10*time.Second, "the first record", func() bool { return len(p.values(topic)) == 1 })
		p.gate.Lock()
		open := sync.OnceFunc(p.gate.Unlock)
		defer open()
		put(t, client, topic, "1") // it commits this one and stands at the gate
		eventually(t, 10*time.Second, "the second record", func() bool { return len(p.values(topic)) == 2 })
		written := time.Now().Add(-time.Hour)
		var recs []broker.Record
		for range 99 {
			recs = append(recs, broker.Record{Topic: topic, Key: []byte("k"), Value: []byte("v"), Time: written})
		}
		produce(t, client, recs)
		eventually(t, 5*time.Second, "a lag of 99 records", func() bool { return lag().Records == 99 })
		old := lag().Age
		eventually(t, 5*time.Second, "an age that grows", func() bool { return lag().Age > old+100*time.Millisecond })
		open()
		eventually(t, 5*time.Second, "no lag", func() bool { return lag() == broker.Lag{} })
	})
}
