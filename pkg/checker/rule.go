package checker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/converge-dev/converge/pkg/facts"
)

// Rule is something that must be true of what services hold of the same thing once nothing is on its way. [Subset],
// [Equal], [SameAmount], [SameUser], [SameItems] and [Settles] declare the usual ones; what is too particular for
// them is declared by its functions.
type Rule struct {
	Kinds []Kind // of the flaws that it finds

	// DiffersIn tells from digests whether a span of things has to be looked into. It must be true wherever the rule
	// could find something: a span for which no rule says so is not looked into. A service of an earlier version may
	// not digest content.
	DiffersIn func(b Buckets) bool

	// Differs tells whether there is something to judge at one thing. A thing that differs and has no flaws is on its
	// way.
	Differs func(h Held) bool

	// Flaws says what is wrong with a thing that differs, if nothing is on its way: all that is held of it is older
	// than the watermark.
	Flaws func(h Held, t Terms) []Flaw

	services []string // that the rule names
	repair   Command
}

// Terms are what a thing is judged by, beside what is held of it.
type Terms struct {
	Watermark time.Time // what is not older may be on its way
	Now       time.Time
}

// Flaw is something that is wrong with a thing.
type Flaw struct {
	Kind   Kind
	Detail string

	repair Command
}

// Buckets are the services' digests of one span of time. One that holds nothing there has an empty one.
type Buckets struct {
	services []Service
	digests  []facts.Bucket
}

// Of is a service's digest.
func (b Buckets) Of(service string) facts.Bucket {
	i := slices.IndexFunc(b.services, func(s Service) bool { return s.Name == service })
	return b.digests[i] // the names of rules are validated
}

// Judge says what is wrong with a thing, or that it differs and is on its way, or neither: the rule holds.
func (r Rule) Judge(h Held, t Terms) (flaws []Flaw, inFlight bool) {
	if !r.Differs(h) {
		return nil, false
	}
	for _, one := range h {
		if one.Fact != nil && !one.Fact.ChangedAt.Before(t.Watermark) {
			return nil, true
		}
	}
	flaws = r.Flaws(h, t)
	for i := range flaws {
		flaws[i].repair = r.repair
	}
	return flaws, len(flaws) == 0
}

// RepairedBy has what breaks the rule repaired by a command. Without one it is left to a person.
func (r Rule) RepairedBy(c Command) Rule {
	r.repair = c
	r.services = append(slices.Clone(r.services), c.Service)
	return r
}

// named tells whether a rule or a command names a service that is declared.
func (c Config) named(service string) error {
	var names []string
	for _, s := range c.Services {
		if s.Name == service {
			return nil
		}
		names = append(names, s.Name)
	}
	return fmt.Errorf("checker: there is no service %q: the services are %s", service, strings.Join(names, ", "))
}
