package broker

import (
	"context"
	"slices"
	"testing"
)

// Each partition is gained once for each time that it comes, whether there is something to read in it or not: one that
// comes back before it was given up, after that.
func TestGainedPartitions(t *testing.T) {
	s := newSession(&Client{}, GroupConfig{})
	a, b := TopicPartition{"t", 0}, TopicPartition{"t", 1}
	who := identity{member: "m", generation: 1}
	record := Record{Topic: "t", Partition: 1}
	poll := func(gained, leaving []TopicPartition) {
		t.Helper()
		if len(gained) == 0 && len(leaving) == 0 {
			s.pending = append(s.pending, record)
		}
		got, err := s.Poll(context.Background(), 10)
		if err != nil || !slices.Equal(got.Gained, gained) || !slices.Equal(got.Leaving, leaving) {
			t.Errorf("gained %v, leaving %v, %v; want %v and %v", got.Gained, got.Leaving, err, gained, leaving)
		}
	}
	s.assign(who, []TopicPartition{a, b})
	poll([]TopicPartition{a, b}, nil)
	poll(nil, nil)
	s.assign(who, []TopicPartition{b})
	s.assign(who, []TopicPartition{a, b})
	poll(nil, []TopicPartition{a})
	poll([]TopicPartition{a}, nil)
	poll(nil, nil)
	c := TopicPartition{"t", 2}
	s.assign(who, []TopicPartition{a, b, c})
	s.assign(who, []TopicPartition{a, b})
	poll(nil, []TopicPartition{c})
	poll(nil, nil)
}
