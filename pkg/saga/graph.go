package saga

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/broker"
)

// Mermaid draws the choreography of services as a Mermaid flowchart: an arrow for each topic, from the service that
// emits it to each that reacts. It follows from the routes, so it is what the code does.
func Mermaid(services ...Service) string {
	consumers := map[string][]string{}
	for _, s := range services {
		for _, r := range s.Routes {
			if !slices.Contains(consumers[r.topic], s.Name) {
				consumers[r.topic] = append(consumers[r.topic], s.Name)
			}
		}
	}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, s := range services {
		fmt.Fprintf(&b, "    %s[%s]\n", s.Name, s.Name)
	}
	for _, s := range services {
		for _, topic := range s.emitted() {
			to := consumers[topic]
			if len(to) == 0 { // nobody here reacts: for whoever subscribes
				fmt.Fprintf(&b, "    %s -- %s --> %s_sink(( ))\n", s.Name, topic, strings.ReplaceAll(topic, ".", "_"))
			}
			for _, name := range to {
				fmt.Fprintf(&b, "    %s -- %s --> %s\n", s.Name, topic, name)
			}
		}
	}
	return b.String()
}

// emitted lists the topics that the service may publish, in order of first mention.
func (s Service) emitted() []string {
	var topics []string
	add := func(t string) {
		if !slices.Contains(topics, t) {
			topics = append(topics, t)
		}
	}
	for _, t := range s.Publishes {
		add(t.Name())
	}
	for _, r := range s.Routes {
		for _, t := range r.emits {
			add(t)
		}
	}
	return topics
}

// Topics lists every topic of the services, sorted: what they react to, what they emit, and the dead letter topic of
// each consumer group. Events are kept: read sides are built from them, the next one from the first of them. Dead letters are few, have one partition, and must fit a message of the largest size with what is
// said about it.
func Topics(partitions int, services ...Service) ([]broker.TopicSpec, error) {
	specs := map[string]broker.TopicSpec{}
	add := func(name string) {
		specs[name] = broker.TopicSpec{Name: name, Partitions: partitions, Config: map[string]string{"retention.ms": "-1"}}
	}
	for _, s := range services {
		groups, err := s.groups()
		if err != nil {
			return nil, err
		}
		for _, topic := range s.emitted() {
			add(topic)
		}
		for group, routes := range groups {
			for _, r := range routes {
				add(r.topic)
			}
			dlq := DeadLetterTopic(group)
			specs[dlq] = broker.TopicSpec{Name: dlq, Partitions: 1, Config: map[string]string{"max.message.bytes": "2162688", "retention.ms": "-1"}}
		}
	}
	out := make([]broker.TopicSpec, 0, len(specs))
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		out = append(out, specs[name])
	}
	return out, nil
}
