package sagatest

import (
	"context"
	"slices"
	"time"
)

// shrinkTime bounds how long a failing history is shortened.
const shrinkTime = time.Minute

// plan is a history as it is tried again: what is special about it, and the inputs that are left out.
type plan struct {
	steps []step
	left  []bool
}

// shrinker shortens a plan while it fails (Zeller, "Simplifying and Isolating Failure-Inducing Input", 2002). A step
// says what happens and not to which records, so any part of a plan is a plan, and steps that have become impossible
// fall away.
type shrinker struct {
	*simulation
	ctx      context.Context
	seed     uint64
	deadline time.Time

	plan    plan // the shortest that failed
	failure Failure
}

func (s *simulation) shrink(ctx context.Context, seed uint64, p plan, err error) *Failure {
	sh := &shrinker{simulation: s, ctx: ctx, seed: seed, deadline: time.Now().Add(shrinkTime), plan: p}
	sh.failure = Failure{Seed: seed, Err: err, Steps: len(p.steps)}
	sh.told()
	if !sh.fails(p) { // it depends on something else than the seed
		sh.failure.Events = append(sh.failure.Events, "(this did not happen when the same was tried again)")
		return &sh.failure
	}
	for before := -1; before != sh.size(); {
		before = sh.size()
		sh.dropSteps()
		sh.dropInputs()
		sh.simplify()
	}
	return &sh.failure
}

// size falls with everything that makes a plan simpler.
func (s *shrinker) size() int {
	n := 0
	for _, left := range s.plan.left {
		if !left {
			n += 100
		}
	}
	for _, st := range s.plan.steps {
		n += 10
		for _, odd := range []bool{st.fate != fine, st.mix != 0, st.n != most, st.kind == overlap} {
			if odd {
				n++
			}
		}
	}
	return n
}

// fails runs a plan, and keeps it if it fails.
func (s *shrinker) fails(p plan) bool {
	if s.ctx.Err() != nil || time.Now().After(s.deadline) {
		return false
	}
	s.failure.Repeats++
	var taken []step
	err := s.run(s.ctx, s.seed, func(ctx context.Context) error {
		for _, st := range p.steps {
			did, err := s.do(ctx, st)
			if did {
				taken = append(taken, st)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, p.left)
	if err == nil || s.ctx.Err() != nil {
		return false
	}
	s.plan, s.failure.Err = plan{taken, p.left}, err
	s.told()
	return true
}

// told keeps the report of the history that ran last.
func (s *shrinker) told() {
	f := &s.failure
	f.Events, f.Rest, f.Inputs = slices.Clone(s.events), nil, nil
	if i := slices.Index(f.Events, rest); i >= 0 {
		f.Events, f.Rest = f.Events[:i], f.Events[i+1:]
	}
	for _, in := range (&World{sim: s.simulation}).Done() {
		if in.Name != "" {
			f.Inputs = append(f.Inputs, in.Name)
		}
	}
}

// dropSteps tries without halves, quarters and so on, down to single steps.
func (s *shrinker) dropSteps() {
	for size := len(s.plan.steps); size > 0; size /= 2 {
		for at := 0; at < len(s.plan.steps); {
			end := min(at+size, len(s.plan.steps))
			if !s.fails(plan{slices.Concat(s.plan.steps[:at], s.plan.steps[end:]), s.plan.left}) {
				at += size
			}
		}
	}
}

// dropInputs tries without each input.
func (s *shrinker) dropInputs() {
	for i, left := range s.plan.left {
		if !left {
			without := slices.Clone(s.plan.left)
			without[i] = true
			s.fails(plan{s.plan.steps, without})
		}
	}
}

// simplify tries with less that is special about each step.
func (s *shrinker) simplify() {
	for i := 0; i < len(s.plan.steps); i++ {
		for _, simpler := range []func(*step){
			func(st *step) {
				if st.kind == overlap {
					st.kind = poll
				}
			},
			func(st *step) { st.fate = fine },
			func(st *step) { st.mix = 0 },
			func(st *step) { st.n = most },
		} {
			if i >= len(s.plan.steps) {
				return
			}
			steps := slices.Clone(s.plan.steps)
			if simpler(&steps[i]); steps[i] != s.plan.steps[i] {
				s.fails(plan{steps, s.plan.left})
			}
		}
	}
}
