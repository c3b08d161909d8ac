package broker

import (
	"cmp"
	"maps"
	"slices"
)

// The protocols that members offer, the preferred one first: a group takes the first one that all its members know. The
// second is what kafka-go's ConsumerGroup, Java's and franz-go's consumers call by the same name.
const (
	cooperativeRange = "cooperative-range"
	eagerRange       = "range"
)

// subscriber is a member as the leader sees it.
type subscriber struct {
	id         string
	rank       string // orders members: the instance id if there is one, which lasts
	topics     []string
	owned      []TopicPartition
	generation int32 // in which it owned them
}

// assign shares the partitions of all topics out among the members who subscribe to them: each one to one member.
//
// Partitions with the same number belong together, because what has one key lies in them: one member gets them all, as
// far as the subscriptions allow. The numbers are spread evenly, no member has two more than another with the same
// subscription, and stay where they are as far as that allows.
func assign(members []subscriber, partitions map[string]int) map[string][]TopicPartition {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b subscriber) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id)) })
	a := assignment{members: members, owner: owners(members), load: make([]int, len(members))}

	// Topics with the same subscribers are shared out together, by partition number.
	groups := map[string][]string{}
	byKey := map[string][]int{}
	for _, topic := range slices.Sorted(maps.Keys(partitions)) {
		var who []int
		var key []byte
		for i := range members {
			if slices.Contains(members[i].topics, topic) {
				who = append(who, i)
				key = append(key, byte(i), byte(i>>8))
			}
		}
		if len(who) > 0 {
			groups[string(key)] = append(groups[string(key)], topic)
			byKey[string(key)] = who
		}
	}
	out := make(map[string][]TopicPartition, len(members))
	for i := range members {
		out[members[i].id] = nil
	}
	a.preferred = map[int]int{}
	// The largest set of subscribers goes first: the others then follow its choice where they can.
	keys := slices.SortedFunc(maps.Keys(groups), func(x, y string) int {
		return cmp.Or(cmp.Compare(len(byKey[y]), len(byKey[x])), cmp.Compare(x, y))
	})
	for _, key := range keys {
		a.share(groups[key], byKey[key], partitions, out)
	}
	return out
}

// owners is who has each partition. Where two members claim one, the one of the later generation has it.
func owners(members []subscriber) map[TopicPartition]int {
	owner := map[TopicPartition]int{}
	for i := range members {
		for _, tp := range members[i].owned {
			if o, taken := owner[tp]; !taken || members[o].generation < members[i].generation {
				owner[tp] = i
			}
		}
	}
	return owner
}

type assignment struct {
	members   []subscriber
	owner     map[TopicPartition]int
	load      []int       // partitions that each member has got so far
	preferred map[int]int // partition number → member who got it in an earlier set of topics
}

// share gives the partitions of topics with the same subscribers to them.
func (a *assignment) share(topics []string, who []int, partitions map[string]int, out map[string][]TopicPartition) {
	numbers := 0
	for _, t := range topics {
		numbers = max(numbers, partitions[t])
	}
	// Each member gets numbers/len(who) numbers, and the first few one more: those who have most of them already, so
	// that the least moves, then those who have had less of other topics.
	claims := make([]map[int]int, numbers) // number → member → how many of its partitions it has
	held := map[int]int{}
	for n := range numbers {
		claims[n] = map[int]int{}
		for _, t := range topics {
			if o, ok := a.owner[TopicPartition{t, n}]; ok && n < partitions[t] && slices.Contains(who, o) {
				claims[n][o]++
			}
		}
		if o, ok := largest(claims[n]); ok {
			held[o]++
		}
	}
	least, more := numbers/len(who), numbers%len(who)
	order := slices.Clone(who)
	slices.SortStableFunc(order, func(x, y int) int {
		return cmp.Or(cmp.Compare(min(held[y], least+1), min(held[x], least+1)), cmp.Compare(a.load[x], a.load[y]))
	})
	room := map[int]int{}
	for i, m := range order {
		room[m] = least
		if i < more {
			room[m]++
		}
	}
	to := make([]int, numbers)
	give := func(n, m int) {
		to[n] = m
		room[m]--
	}
	var free []int
	for n := range numbers { // who has it keeps it
		if o, ok := largest(claims[n]); ok && room[o] > 0 {
			give(n, o)
		} else {
			free = append(free, n)
		}
	}
	rest := free[:0:0]
	for _, n := range free { // who has the number of other topics gets it
		if m, ok := a.preferred[n]; ok && room[m] > 0 {
			give(n, m)
		} else {
			rest = append(rest, n)
		}
	}
	for _, n := range rest { // the others are spread
		m := slices.MinFunc(who, func(x, y int) int {
			return cmp.Or(cmp.Compare(min(room[y], 1), min(room[x], 1)), cmp.Compare(a.load[x], a.load[y]), cmp.Compare(x, y))
		})
		give(n, m)
	}
	for n, m := range to {
		if _, ok := a.preferred[n]; !ok {
			a.preferred[n] = m
		}
		for _, t := range topics {
			if n < partitions[t] {
				id := a.members[m].id
				out[id] = append(out[id], TopicPartition{t, n})
				a.load[m]++
			}
		}
	}
}

// largest returns the member with the largest claim, the first among equals.
func largest(claims map[int]int) (member int, ok bool) {
	for _, m := range slices.Sorted(maps.Keys(claims)) {
		if !ok || claims[m] > claims[member] {
			member, ok = m, true
		}
	}
	return member, ok
}

// withhold takes out of an assignment what another member still has: it gives that up first, rejoins, and the next
// assignment hands it over. Nobody has a partition twice in the meantime.
func withhold(to map[string][]TopicPartition, members []subscriber) {
	for tp, o := range owners(members) {
		for id, tps := range to {
			if id == members[o].id {
				continue
			}
			if i := slices.Index(tps, tp); i >= 0 {
				to[id] = slices.Delete(tps, i, i+1)
			}
		}
	}
}
