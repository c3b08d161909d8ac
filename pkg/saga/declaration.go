package saga

import "slices"

// Declaration is what a service says of its part in the choreography, as data: what GET /choreography.json of a running
// service answers. Whoever has the declarations of several services can draw them, create their topics and write their
// ACLs without their code.
type Declaration struct {
	Service   string          `json:"service" example:"order" doc:"the service's name: its consumer group, and the source of its events"`
	Routes    []DeclaredRoute `json:"routes" nullable:"false" doc:"what it reacts to"`
	Publishes []string        `json:"publishes" nullable:"false" doc:"topics of the events that requests, deadlines and the like begin, outside the routes"`
}

// DeclaredRoute is one [Route] of a [Declaration].
type DeclaredRoute struct {
	Topic       string   `json:"topic" example:"payment.completed" doc:"what it reacts to"`
	Group       string   `json:"group" example:"order" doc:"the consumer group"`
	DeadLetters string   `json:"deadLetters" example:"order.dlq" doc:"the topic for messages that no code can handle"`
	Emits       []string `json:"emits" nullable:"false" doc:"topics of the events that it may emit"`
}

// Declaration is the service's part in the choreography. It does not check the routes; [Service.Groups] does.
func (s Service) Declaration() Declaration {
	d := Declaration{Service: s.Name, Routes: make([]DeclaredRoute, 0, len(s.Routes)), Publishes: []string{}}
	for _, r := range s.Routes {
		group := s.groupOf(r)
		d.Routes = append(d.Routes, DeclaredRoute{
			Topic: r.topic, Group: group, DeadLetters: DeadLetterTopic(group), Emits: append([]string{}, r.emits...),
		})
	}
	for _, t := range s.Publishes {
		d.Publishes = appendNew(d.Publishes, t.Name())
	}
	return d
}

// Declarations are those of the services, in their order.
func Declarations(services ...Service) []Declaration {
	all := make([]Declaration, len(services))
	for i, s := range services {
		all[i] = s.Declaration()
	}
	return all
}

// Emits lists the topics that the service may publish, in order of first mention. Dead letter topics are not among
// them.
func (d Declaration) Emits() []string {
	topics := slices.Clone(d.Publishes)
	for _, r := range d.Routes {
		topics = appendNew(topics, r.Emits...)
	}
	return topics
}

// Consumes lists the topics that the service reacts to, in order of first mention.
func (d Declaration) Consumes() []string {
	var topics []string
	for _, r := range d.Routes {
		topics = appendNew(topics, r.Topic)
	}
	return topics
}

// Groups lists the service's consumer groups, in order of first mention.
func (d Declaration) Groups() []string {
	var groups []string
	for _, r := range d.Routes {
		groups = appendNew(groups, r.Group)
	}
	return groups
}

// appendNew appends the names that are not in the list yet.
func appendNew(list []string, names ...string) []string {
	for _, n := range names {
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}
