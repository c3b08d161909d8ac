package soak

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// schedule decides, by its seed, which faults come together. Every fault comes once before any comes twice.
type schedule struct {
	rnd    *rand.Rand
	faults []fault
	bag    []fault
}

func newSchedule(opts *Options) *schedule {
	s := &schedule{rnd: rand.New(rand.NewPCG(opts.Seed, 2))}
	for _, f := range faults() {
		if opts.has(f.name) {
			s.faults = append(s.faults, f)
		}
	}
	return s
}

// planned is a fault with its victim.
type planned struct {
	fault
	victim string
	delay  time.Duration
	seed   uint64
}

// next is what comes at once: one fault most of the time, two or three often. None touches what another holds, and none
// lasts longer than is left. There may be none.
func (s *schedule) next(w *world, left time.Duration) []planned {
	want := 1
	switch p := s.rnd.IntN(10); {
	case p < 1:
		want = 3
	case p < 4:
		want = 2
	}
	var picked []planned
	held := map[string]bool{}
	for range 4 * len(s.faults) {
		if len(picked) == want {
			break
		}
		if len(s.bag) == 0 {
			s.bag = slices.Clone(s.faults)
			s.rnd.Shuffle(len(s.bag), func(i, j int) { s.bag[i], s.bag[j] = s.bag[j], s.bag[i] })
		}
		f := s.bag[0]
		s.bag = s.bag[1:]
		victim := f.on(w, s.rnd)
		holds := f.holds(victim)
		if f.lasts(&w.opts) > left {
			continue
		}
		if slices.ContainsFunc(holds, func(what string) bool { return held[what] }) {
			s.bag = append(s.bag, f) // its turn comes
			continue
		}
		for _, what := range holds {
			held[what] = true
		}
		picked = append(picked, planned{f, victim, between(s.rnd, 0, time.Second), s.rnd.Uint64()})
	}
	return picked
}

// unleash does faults until the time is over, and returns when everything that was broken is back.
func unleash(ctx context.Context, c *calamity, h *history, say func(string, ...any), until time.Time) {
	s := newSchedule(&c.world.opts)
	for ctx.Err() == nil {
		picked := s.next(c.world, time.Until(until))
		if len(picked) == 0 {
			return
		}
		var all sync.WaitGroup
		for _, p := range picked {
			all.Go(func() {
				if len(picked) > 1 {
					pause(ctx, p.delay)
				}
				e := Episode{Fault: p.name, On: p.victim, Start: time.Now().UTC()}
				note, err := p.run(ctx, c, p.victim, rand.New(rand.NewPCG(p.seed, 3)))
				e.Note, e.End = note, time.Now().UTC()
				if err != nil && ctx.Err() == nil {
					e.Error = err.Error()
				}
				h.add(e)
				n := c.load.counts()
				say("%s  %s  (%d placed, %d acknowledged)", e.Start.Format(time.TimeOnly), e, n.Placed, n.Acked)
			})
		}
		all.Wait()
		// Sometimes the next comes before all are back to work, and sometimes after.
		pause(ctx, between(s.rnd, 500*time.Millisecond, max(time.Second, c.world.opts.long(10*time.Second))))
	}
}
