package sagatest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/saga"
)

// overlap stops one transaction at its commit, until another has come as far as it can.
func (s *simulation) overlap(ctx context.Context, st step) (did bool, err error) {
	g, other := s.groups[st.at], s.groups[st.with]
	peers := st.with == st.at && st.fate != replaced
	first := g.poll(s.kafka, st.n, st.mix, peers, nil) // peers have different partitions
	if len(first) == 0 {
		return false, nil
	}
	member, how := g.member, "while another member"
	switch {
	case st.fate == replaced:
		how = "as a member that was replaced, while its successor"
		err = s.replace(g)
	case peers:
		var members []*saga.Member
		if members, err = s.members(g.service); err == nil {
			member = members[g.place]
		}
	}
	if err != nil {
		return false, err
	}
	var without []broker.Record
	if peers {
		without = first
	}
	second := other.poll(s.kafka, st.n, st.mix, false, without)
	if len(second) == 0 {
		s.note("%s handles %s", g.member.Group(), s.kafka.list(first))
		return true, s.handle(ctx, member, g, first)
	}
	if st.with != st.at {
		how = "while " + other.member.Group()
	}
	s.note("%s handles %s, %s handles %s", g.member.Group(), s.kafka.list(first), how, s.kafka.list(second))
	s.databases[s.of[g.service]].dirty = true
	if err := s.both(ctx, g, func(ctx context.Context) error { return member.Handle(ctx, first...) },
		func(ctx context.Context) error { return other.member.Handle(ctx, second...) }); err != nil {
		return true, fmt.Errorf("%s handles %s, %s handles %s: %w", g.member.Group(), s.kafka.list(first), how, s.kafka.list(second), err)
	}
	g.commit()
	other.commit()
	return true, nil
}

// both runs two transactions. The first waits at its commit until the second is done, or waits for the first.
func (s *simulation) both(ctx context.Context, g *group, first, second func(ctx context.Context) error) error {
	f := &fault{reached: make(chan struct{}), release: make(chan struct{})}
	one, two := make(chan error, 1), make(chan error, 1)
	go func() { one <- first(f.in(ctx)) }()
	var errs []error
	select {
	case <-f.reached:
	case err := <-one:
		errs = append(errs, err)
	}
	go func() { two <- second(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for released := false; len(errs) < 2; {
		select {
		case err := <-one:
			errs = append(errs, err)
		case err := <-two:
			errs = append(errs, err)
			if !released {
				released = true
				close(f.release)
			}
		case <-tick.C:
			if released {
				continue
			}
			if blocked, err := s.databases[s.of[g.service]].blocked(ctx); blocked || err != nil {
				released = true
				close(f.release)
			}
		}
	}
	return errors.Join(errs...)
}

// blocked tells whether somebody waits for a lock.
func (d *database) blocked(ctx context.Context) (yes bool, err error) {
	err = d.look.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&yes)
	return yes, err
}
