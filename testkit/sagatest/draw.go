package sagatest

import (
	"math/rand/v2"
	"time"
)

// odds are how likely each relay and each group is chosen: some lag far behind in some histories.
type odds struct{ input, background, relays, groups float64s }

type float64s []float64

func (s *simulation) drawOdds(r *rand.Rand) odds {
	draw := func(n int) float64s {
		out := make(float64s, n)
		for i := range out {
			out[i] = []float64{1, 1, 4, 0.05}[r.IntN(4)]
		}
		return out
	}
	return odds{input: draw(1), background: draw(1), relays: draw(len(s.databases)), groups: draw(len(s.groups))}
}

// draw chooses a step among those that are possible. possible is false when none is.
func (s *simulation) draw(r *rand.Rand, o odds) (st step, possible bool) {
	var choices []step
	var weights float64s
	add := func(weight float64, st step) { choices, weights = append(choices, st), append(weights, weight) }
	for _, done := range s.done {
		if !done {
			add(o.input[0], step{kind: input})
			break
		}
	}
	for i, d := range s.databases {
		if d.dirty {
			add(o.relays[i], step{kind: relay, at: i})
		}
	}
	for i, g := range s.groups {
		if len(g.waiting(s.kafka)) > 0 {
			add(o.groups[i], step{kind: poll, at: i})
		}
		if len(g.zombies) > 0 {
			add(0.3, step{kind: wake, at: i})
		}
	}
	if len(choices) == 0 {
		return st, false
	}
	for i, svc := range s.services {
		for n := range svc.Background {
			add(0.2*o.background[0], step{kind: background, at: i, with: n})
		}
	}
	st = choices[weights.draw(r)]
	s.drawFate(r, &st)
	return st, true
}

func (w float64s) draw(r *rand.Rand) int {
	sum := 0.0
	for _, x := range w {
		sum += x
	}
	at := r.Float64() * sum
	for i, x := range w {
		if at -= x; at < 0 {
			return i
		}
	}
	return len(w) - 1
}

// drawFate completes a step.
func (s *simulation) drawFate(r *rand.Rand, st *step) {
	luck := r.Float64()
	st.n, st.mix = 1+r.IntN(4), r.Uint64()
	if r.IntN(4) == 0 {
		st.n = most
	}
	switch st.kind {
	case input:
		if luck < 0.1 {
			st.fate = again
		}
	case relay:
		if luck < 0.2 {
			st.fate = again
		}
	case background:
		st.leap = []time.Duration{time.Second, time.Minute, time.Hour}[r.IntN(3)]
	case poll:
		switch {
		case r.IntN(4) == 0 && len(s.groups[st.at].waiting(s.kafka)) > 1:
			st.kind, st.with = overlap, st.at
		case luck < 0.45:
		case luck < 0.52:
			st.fate = uncommitted
		case luck < 0.62:
			st.fate = crashBefore
		case luck < 0.72:
			st.fate = crashAfter
		case luck < 0.8:
			st.fate = replaced
		case luck < 0.9:
			st.kind, st.with, st.fate = overlap, st.at, replaced
		default:
			st.kind, st.with = overlap, s.neighbour(r, st.at)
		}
	}
}

// neighbour chooses another group of the same database, or the group itself if there is none.
func (s *simulation) neighbour(r *rand.Rand, at int) int {
	var others []int
	for i, g := range s.groups {
		if i != at && s.of[g.service] == s.of[s.groups[at].service] {
			others = append(others, i)
		}
	}
	if len(others) == 0 {
		return at
	}
	return others[r.IntN(len(others))]
}
