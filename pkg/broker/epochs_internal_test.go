package broker

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEpochs(t *testing.T) {
	e := epochs{{-1, 2}, {50, 4}, {80, 7}}
	for offset, want := range map[int64]int32{0: 2, 50: 2, 51: 4, 80: 4, 81: 7, 100: 7} {
		if got := e.before(offset); got != want {
			t.Errorf("before %d: epoch %d, want %d", offset, got, want)
		}
	}
	if got := (epochs{}).before(9); got != noEpoch {
		t.Errorf("no epochs have %d", got)
	}
	for end, want := range map[epochOffset]int64{{100, 7}: 100, {60, 4}: 60, {90, 4}: 80, {90, 5}: 80, {90, 3}: 50, {40, 2}: 40, {90, 1}: 50} {
		if got := e.common(end); got != want {
			t.Errorf("a log in which epoch %d ends at %d has %d in common, want %d", end.epoch, end.offset, got, want)
		}
	}
	e.add(epochOffset{90, 7}, epochOffset{95, 8})
	e.forget(80)
	if diff := cmp.Diff(epochs{{50, 4}, {80, 7}, {95, 8}}, e, cmp.AllowUnexported(epochOffset{})); diff != "" {
		t.Error(diff)
	}
}

// A request names a partition whose leader epoch has changed, also where the offset is what the broker knows.
func TestSessionTellsEpochs(t *testing.T) {
	tp, other := TopicPartition{"t", 0}, TopicPartition{"t", 1}
	var f fetchSession
	f.answered(1, map[TopicPartition]epochOffset{tp: {5, 1}, other: {5, 1}})
	want := map[TopicPartition]epochOffset{tp: {5, 2}}
	if got := f.partitions(map[TopicPartition]epochOffset{tp: {5, 2}, other: {5, 1}}); !cmp.Equal(want, got, cmp.AllowUnexported(epochOffset{})) {
		t.Errorf("names %v, want %v", got, want)
	}
}

// After a rewind, nothing of the old log is polled or committed any more.
func TestRewindForgetsTheOldLog(t *testing.T) {
	tp := TopicPartition{"t", 0}
	s := newSession(nil, GroupConfig{})
	s.assign(identity{}, []TopicPartition{tp})
	h := s.held[tp]
	h.next, h.epochs = 100, epochs{{0, 0}}
	s.pending = []Record{{Topic: "t", Offset: 59}, {Topic: "t", Offset: 60}, {Topic: "t", Offset: 99}}
	s.mu.Lock()
	s.rewind(h, position{60, 60, 0}, epochs{{-1, 0}}, 1)
	s.mu.Unlock()
	s.giveUp()
	if len(s.pending) != 1 || s.pending[0].Offset != 59 {
		t.Errorf("what waits for Poll is %v, want offset 59 alone", s.pending)
	}
	d := delivery{[]Record{{Topic: "t", Offset: 99}}, map[TopicPartition]*share{tp: h}, make(chan struct{})}
	if s.take(d); len(s.pending) != 1 {
		t.Errorf("a fetch of the old log is taken: %v", s.pending)
	}
	commits := func(offset int64, want map[TopicPartition]epochOffset) {
		t.Helper()
		if _, got, _ := s.mine(map[TopicPartition]int64{tp: offset}); !cmp.Equal(want, got, cmp.AllowUnexported(epochOffset{})) {
			t.Errorf("a commit of %d says %v, want %v", offset, got, want)
		}
	}
	commits(60, map[TopicPartition]epochOffset{tp: {60, 0}})
	commits(100, map[TopicPartition]epochOffset{})
	now := s.held[tp]
	now.epochs.add(epochOffset{60, 1})
	now.next = 150
	commits(100, map[TopicPartition]epochOffset{})
	s.gave([]Record{{Topic: "t", Offset: 99}})
	commits(100, map[TopicPartition]epochOffset{tp: {100, 1}})
}
