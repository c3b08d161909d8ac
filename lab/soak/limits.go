package soak

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// limit is what a fault may cost those whom it does not concern, where no other fault may be why.
type limit struct {
	during time.Duration // without any order settling while it goes on; 0: as long as it takes
	within time.Duration // without any order of one of the partitions settling while it goes on; 0: as long as it takes
	counts time.Duration // without the witness counting any; 0: as long as it takes
	after  time.Duration // without any order settling when it is over; 0: as long as it takes
}

// limits are of the faults that concern one topic, partition, key, connection or instance of several. Each goes on for
// longer.
func limits() map[string]limit {
	const seconds = 10 * time.Second
	return map[string]limit{
		"topic-deleted":         {during: seconds, after: seconds},
		"partition-leaderless":  {during: seconds, after: seconds},
		"key-poisoned":          {during: seconds, counts: seconds, after: seconds},
		"oversized":             {during: seconds, counts: seconds, after: seconds},
		"frozen-in-transaction": {during: seconds + 5*time.Second, within: seconds + 5*time.Second, after: seconds}, // the server waits 10 s for it
		"slow-client":           {during: seconds, after: seconds},
		"database-blackhole":    {after: seconds + 5*time.Second},
		"kafka-amnesia":         {after: seconds + 5*time.Second},
	}
}

// shadow is how long after its end a fault may still be why nothing goes on.
const shadow = 15 * time.Second

// checkLimits holds the times at which orders settled and were counted against what each fault may cost, and the time
// that settling took at the end against its bound.
func (f *facts) checkLimits(v *verdict) {
	v.that(f.settling <= f.patience, "settling took too long", "%.1f s after the last fault; it may take %s", f.settling.Seconds(), f.patience)
	settled, counted := f.settledAt(), slices.SortedFunc(slices.Values(f.countedAt), time.Time.Compare)
	byPartition := f.settledByPartition()
	for _, e := range f.episodes {
		limit := limits()[e.Fault]
		from, alone := aloneFrom(e, f.episodes)
		if !alone {
			continue
		}
		until := e.End
		if f.ended.Before(until) {
			until = f.ended
		}
		for _, one := range []struct {
			what  string
			times []time.Time
			most  time.Duration
		}{{"no order settled", settled, limit.during}, {"the witness counted none", counted, limit.counts}} {
			gap := longestGap(one.times, from, until)
			v.that(one.most == 0 || gap <= one.most, "a fault stopped more than it concerns", "%s: %s for %.1f s, which may be %s",
				e, one.what, gap.Seconds(), one.most)
		}
		for p, times := range byPartition {
			gap := longestGap(times, from, until)
			v.that(limit.within == 0 || gap <= limit.within, "a fault stopped some for longer than it may", "%s: no order of partition %d settled for %.1f s, which may be %s",
				e, p, gap.Seconds(), limit.within)
		}
		if after, ok := resumption(e, f.episodes, settled, f.ended); ok && limit.after > 0 {
			v.that(after <= limit.after, "work did not go on when a fault was over", "%s: no order settled for %.1f s after it, which may be %s",
				e, after.Seconds(), limit.after)
		}
	}
}

// aloneFrom tells from when on no other fault may have to do with what a fault does, if there is such a time.
func aloneFrom(e Episode, episodes []Episode) (from time.Time, alone bool) {
	from = e.Start
	for _, other := range episodes {
		if other == e || !other.Start.Before(e.End) {
			continue
		}
		if other.End.After(e.Start) {
			return from, false
		}
		if free := other.End.Add(shadow); free.After(from) {
			from = free
		}
	}
	return from, from.Before(e.End)
}

// longestGap is the longest time between from and until in which none of times lies.
func longestGap(times []time.Time, from, until time.Time) (longest time.Duration) {
	i, _ := slices.BinarySearchFunc(times, from, time.Time.Compare)
	for last := from; last.Before(until); i++ {
		next := until
		if i < len(times) && times[i].Before(until) {
			next = times[i]
		}
		longest = max(longest, next.Sub(last))
		last = next
	}
	return longest
}

// settledAt is when orders settled, oldest first: when their last events were written, by the clock of the order
// service's database. One that its user cancelled while it was PENDING needs nobody but the order service for that, and
// does not count.
func (f *facts) settledAt() []time.Time {
	var settled []time.Time
	for _, times := range f.settledByPartition() {
		settled = append(settled, times...)
	}
	slices.SortFunc(settled, time.Time.Compare)
	return settled
}

func (f *facts) settledByPartition() map[int][]time.Time {
	settled := map[int][]time.Time{}
	for _, topic := range []string{"order.confirmed", "order.cancelled"} {
		for _, records := range f.topics[topic] {
			if topic == "order.cancelled" && records[0].cause == uuid.Nil {
				continue
			}
			settled[records[0].partition] = append(settled[records[0].partition], records[0].at)
		}
	}
	for _, times := range settled {
		slices.SortFunc(times, time.Time.Compare)
	}
	return settled
}
