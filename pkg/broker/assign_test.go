package broker

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawGroup draws members of a group and topics, all with one subscription or each with its own.
func drawGroup(t *rapid.T) ([]subscriber, map[string]int) {
	partitions := map[string]int{}
	var topics []string
	for i := range rapid.IntRange(1, 4).Draw(t, "topics") {
		topic := fmt.Sprintf("topic-%d", i)
		topics = append(topics, topic)
		if n := rapid.IntRange(0, 7).Draw(t, topic); n > 0 { // 0: the cluster does not know it
			partitions[topic] = n
		}
	}
	alike := rapid.Bool().Draw(t, "alike")
	members := make([]subscriber, rapid.IntRange(1, 5).Draw(t, "members"))
	for i := range members {
		id := fmt.Sprintf("member-%d", i)
		members[i] = subscriber{id: id, rank: id, topics: topics}
		if !alike {
			members[i].topics = rapid.SliceOfDistinct(rapid.SampledFrom(topics), rapid.ID[string]).Draw(t, "subscription of "+id)
		}
	}
	return members, partitions
}

// check holds an assignment against what it promises whatever was before.
func check(t *rapid.T, members []subscriber, partitions map[string]int, to map[string][]TopicPartition) {
	t.Helper()
	has := map[TopicPartition]string{}
	for _, m := range members {
		for _, tp := range to[m.id] {
			if other, twice := has[tp]; twice {
				t.Fatalf("%v at %s and at %s", tp, other, m.id)
			}
			if !slices.Contains(m.topics, tp.Topic) || tp.Partition >= partitions[tp.Topic] {
				t.Fatalf("%v at %s, who subscribes to %v of %v", tp, m.id, m.topics, partitions)
			}
			has[tp] = m.id
		}
	}
	for topic, n := range partitions {
		who := slices.DeleteFunc(slices.Clone(members), func(m subscriber) bool { return !slices.Contains(m.topics, topic) })
		if len(who) == 0 {
			continue
		}
		for p := range n {
			if _, ok := has[TopicPartition{topic, p}]; !ok {
				t.Fatalf("%s/%d at nobody", topic, p)
			}
		}
	}
	alike := !slices.ContainsFunc(members, func(m subscriber) bool { return !slices.Equal(m.topics, members[0].topics) })
	if !alike {
		return
	}
	numbers := map[string]map[int]bool{}
	at := map[int]string{}
	for tp, id := range has {
		if other, ok := at[tp.Partition]; ok && other != id {
			t.Fatalf("partition %d of one topic at %s, of another at %s", tp.Partition, other, id)
		}
		at[tp.Partition] = id
		if numbers[id] == nil {
			numbers[id] = map[int]bool{}
		}
		numbers[id][tp.Partition] = true
	}
	least, most := len(at), 0
	for _, m := range members {
		least, most = min(least, len(numbers[m.id])), max(most, len(numbers[m.id]))
	}
	if most > least+1 {
		t.Fatalf("one member has %d partition numbers, another %d: %v", most, least, to)
	}
}

// settle is what a group of cooperative members does: it assigns until nobody has to give anything up.
func settle(t *rapid.T, members []subscriber, partitions map[string]int) map[string][]TopicPartition {
	t.Helper()
	for range 3 {
		to := assign(members, partitions)
		check(t, members, partitions, to)
		before := owners(members)
		withhold(to, members)
		moved := false
		for i := range members {
			for _, tp := range to[members[i].id] {
				if o, ok := before[tp]; ok && o != i {
					t.Fatalf("%v goes to %s while %s has it", tp, members[i].id, members[o].id)
				}
			}
			for _, tp := range members[i].owned {
				moved = moved || !slices.Contains(to[members[i].id], tp)
			}
		}
		for i := range members {
			members[i].owned = to[members[i].id]
		}
		if !moved {
			check(t, members, partitions, to)
			return to
		}
	}
	t.Fatal("the group does not settle after one hand-over")
	return nil
}

func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members, partitions := drawGroup(t)
		first := settle(t, members, partitions)

		// Nothing has changed: nothing moves.
		again := assign(members, partitions)
		for id, tps := range first {
			if !sameSet(tps, again[id]) {
				t.Fatalf("%s had %v and gets %v although nothing has changed", id, tps, again[id])
			}
		}

		switch rapid.SampledFrom([]string{"join", "leave", "grow", "delete", "conflict"}).Draw(t, "then") {
		case "join":
			members = append(members, subscriber{id: "newcomer", rank: "newcomer", topics: members[0].topics})
			numbers := 0
			for _, n := range partitions {
				numbers = max(numbers, n)
			}
			to := assign(members, partitions)
			moved := map[int]bool{}
			for _, m := range members {
				for _, tp := range m.owned {
					if !slices.Contains(to[m.id], tp) {
						moved[tp.Partition] = true
					}
				}
			}
			if alike := !slices.ContainsFunc(members, func(m subscriber) bool { return !slices.Equal(m.topics, members[0].topics) }); alike && len(moved) > numbers/len(members) {
				t.Fatalf("%d of %d partition numbers move to one newcomer of %d members", len(moved), numbers, len(members))
			}
		case "leave":
			members = members[1:]
			if len(members) == 0 {
				return
			}
		case "grow":
			for topic := range maps.Clone(partitions) {
				partitions[topic] += rapid.IntRange(0, 3).Draw(t, "more")
			}
		case "delete":
			for topic := range maps.Clone(partitions) {
				delete(partitions, topic)
				break
			}
		case "conflict": // a member that has not heard that it lost its partitions
			members[0].generation = -1
			members[0].owned = append(slices.Clone(members[0].owned), members[len(members)-1].owned...)
			check(t, members, partitions, assign(members, partitions))
			return
		}
		settle(t, members, partitions)
	})
}

func sameSet(a, b []TopicPartition) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(tp TopicPartition) bool { return !slices.Contains(b, tp) })
}
