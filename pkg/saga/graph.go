package saga

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/converge-dev/converge/pkg/broker"
)

// Mermaid draws the choreography of services as [Draw] does. It follows from the routes, so it is what the code does.
func Mermaid(services ...Service) string { return Draw(Declarations(services...)...) }

// Draw draws a choreography as a Mermaid flowchart: an arrow for each topic, from the service that emits it to each
// that reacts. A topic to which none of the services reacts ends in a small circle, and one that none of them emits
// comes from one.
func Draw(services ...Declaration) string {
	consumers := map[string][]string{}
	var consumed, emitted []string
	for _, d := range services {
		for _, topic := range d.Consumes() {
			consumers[topic] = append(consumers[topic], d.Service)
			consumed = appendNew(consumed, topic)
		}
	}
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, d := range services {
		fmt.Fprintf(&b, "    %s[%s]\n", d.Service, d.Service)
	}
	for _, d := range services {
		for _, topic := range d.Emits() {
			emitted = append(emitted, topic)
			to := consumers[topic]
			if len(to) == 0 { // nobody here reacts: for whoever subscribes
				fmt.Fprintf(&b, "    %s -- %s --> %s_sink(( ))\n", d.Service, topic, strings.ReplaceAll(topic, ".", "_"))
			}
			for _, name := range to {
				fmt.Fprintf(&b, "    %s -- %s --> %s\n", d.Service, topic, name)
			}
		}
	}
	for _, topic := range consumed {
		if slices.Contains(emitted, topic) {
			continue
		}
		for _, name := range consumers[topic] { // nobody here emits it: from a service that is not drawn
			fmt.Fprintf(&b, "    %s_source(( )) -- %s --> %s\n", strings.ReplaceAll(topic, ".", "_"), topic, name)
		}
	}
	return b.String()
}

// Topics lists every topic of the services, sorted, as [DeclaredTopics] does. It fails on a service whose routes
// contradict each other.
func Topics(partitions int, services ...Service) ([]broker.TopicSpec, error) {
	for _, s := range services {
		if _, err := s.groups(); err != nil {
			return nil, err
		}
	}
	return DeclaredTopics(partitions, Declarations(services...)...), nil
}

// DeclaredTopics lists every topic of the services, sorted: what they react to, what they emit, and the dead letter
// topic of each consumer group. Events are kept: read sides are built from them, the next one from the first of them.
// Dead letters are few, have one partition, and must fit a message of the largest size with what is said about it.
func DeclaredTopics(partitions int, services ...Declaration) []broker.TopicSpec {
	specs := map[string]broker.TopicSpec{}
	for _, d := range services {
		for _, name := range appendNew(d.Emits(), d.Consumes()...) {
			specs[name] = broker.TopicSpec{Name: name, Partitions: partitions, Config: map[string]string{"retention.ms": "-1"}}
		}
		for _, r := range d.Routes {
			specs[r.DeadLetters] = broker.TopicSpec{
				Name: r.DeadLetters, Partitions: 1, Config: map[string]string{"max.message.bytes": "2162688", "retention.ms": "-1"},
			}
		}
	}
	out := make([]broker.TopicSpec, 0, len(specs))
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		out = append(out, specs[name])
	}
	return out
}
