package broker

import (
	"testing"
	"testing/synctest"
	"time"
)

// The age is that of the oldest record that is not committed: neither of one that is, nor of a later one. While Kafka
// is silent it grows.
func TestLagAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tp := TopicPartition{"a", 0}
		h := &share{tp: tp, committed: -1, end: -1, endAt: time.Now()}
		s := &Session{held: map[TopicPartition]*share{tp: h}}
		fetch := func(offset, end int64, at time.Time) {
			h.ages.add(offset, at)
			h.next = offset + 1
			h.sawEnd(end, time.Now())
		}
		want := func(records int64, age time.Duration) {
			t.Helper()
			if got := s.Lag()[tp]; got.Records != records || got.Age != age {
				t.Errorf("lag %v, want %d records of %s", got, records, age)
			}
		}
		h.committedTo(0)
		h.sawEnd(0, time.Now())
		want(0, 0)
		fetch(0, 1, time.Now().Add(-time.Hour))
		want(1, time.Hour)
		h.committedTo(1)
		want(0, 0)
		<-time.After(3 * time.Second)
		h.sawEnd(2, time.Now()) // not fetched yet
		<-time.After(2 * time.Second)
		want(1, 2*time.Second)
		fetch(1, 3, time.Now().Add(-time.Minute))
		fetch(2, 3, time.Now())
		want(2, time.Minute)
		h.committedTo(2)
		want(1, 0)
		h.committedTo(3)
		<-time.After(time.Hour)
		want(0, time.Hour) // nobody has answered since
	})
}
