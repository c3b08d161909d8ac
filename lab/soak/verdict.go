package soak

import (
	"fmt"

	"github.com/google/uuid"
)

// Violation is a promise that was not kept. Orders are those it shows in; Examples are the time lines of a few of them.
type Violation struct {
	Rule     string   `json:"rule"`
	Details  []string `json:"details,omitempty"`
	Orders   int      `json:"orders,omitempty"`
	Examples []string `json:"examples,omitempty"`

	ids []uuid.UUID
}

func (v Violation) String() string {
	if n := v.Orders + len(v.Details); n > 1 {
		return fmt.Sprintf("%d × %s", n, v.Rule)
	}
	return v.Rule
}

// verdict collects what is wrong, by rule.
type verdict struct {
	found []Violation
	rules map[string]int
}

// order notes that a rule is broken at an order.
func (v *verdict) order(id uuid.UUID, rule string) {
	i, ok := v.rules[rule]
	if !ok {
		i = len(v.found)
		v.rules[rule] = i
		v.found = append(v.found, Violation{Rule: rule})
	}
	v.found[i].Orders++
	v.found[i].ids = append(v.found[i].ids, id)
}

// that notes what is wrong with something else than an order.
func (v *verdict) that(ok bool, rule, format string, args ...any) {
	if ok {
		return
	}
	i, known := v.rules[rule]
	if !known {
		i = len(v.found)
		v.rules[rule] = i
		v.found = append(v.found, Violation{Rule: rule})
	}
	v.found[i].Details = append(v.found[i].Details, fmt.Sprintf(format, args...))
}
