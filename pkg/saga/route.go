package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
)

// Route is one reaction: a topic, its handler and the events that the handler may emit.
type Route struct {
	topic string
	name  string
	emits []string
	begin func() work
	start broker.StartAt // where its group begins, if it is new

	tombstones bool // the handler gets them
}

// work is a handler with the messages of one batch, decoded.
type work interface {
	add(m Meta, r *broker.Record) (int, error)
	run(ctx context.Context, tx pgx.Tx, picked []int) ([]Out, error)
}

type typedWork[T any] struct {
	topic   Topic[T]
	msgs    []Msg[T]
	handler func(context.Context, pgx.Tx, []Msg[T]) ([]Out, error)
}

func (w *typedWork[T]) add(m Meta, r *broker.Record) (int, error) {
	var data T
	if !m.Tombstone {
		var err error
		if data, err = w.topic.decode(r); err != nil {
			return 0, err
		}
	}
	w.msgs = append(w.msgs, Msg[T]{m, data})
	return len(w.msgs) - 1, nil
}

func (w *typedWork[T]) run(ctx context.Context, tx pgx.Tx, picked []int) ([]Out, error) {
	msgs := make([]Msg[T], len(picked))
	for i, p := range picked {
		msgs[i] = w.msgs[p]
	}
	return w.handler(ctx, tx, msgs)
}

// OnBatch reacts to a topic with a handler that takes a poll's messages at once, in order per key, and treats
// them as sets. No two messages of a call have the same id. emits are the topics of the events that it may return.
//
// The handler must not call other servers: its transaction holds locks. It locks rows in one fixed order, and the row
// of the key before it emits for it. It may run again after a rollback, so it keeps no state outside tx.
func OnBatch[T any](topic Topic[T], handler func(ctx context.Context, tx pgx.Tx, msgs []Msg[T]) ([]Out, error), emits ...AnyTopic) Route {
	names := make([]string, len(emits))
	for i, e := range emits {
		names[i] = e.Name()
	}
	return Route{topic: topic.name, emits: names, begin: func() work { return &typedWork[T]{topic: topic, handler: handler} }}
}

// On reacts to a topic with a handler for one message. A poll's messages still share a transaction. See [OnBatch].
func On[T any](topic Topic[T], handler func(ctx context.Context, tx pgx.Tx, m Msg[T]) ([]Out, error), emits ...AnyTopic) Route {
	return OnBatch(topic, func(ctx context.Context, tx pgx.Tx, msgs []Msg[T]) ([]Out, error) {
		var outs []Out
		for _, m := range msgs {
			o, err := handler(withTrace(ctx, m.Meta), tx, m)
			if err != nil {
				return nil, Blame(m.Meta, fmt.Errorf("%s %s: %w", m.Topic, m.Key, err))
			}
			outs = append(outs, o...)
		}
		return outs, nil
	}, emits...)
}

// Named gives the route a consumer group and an inbox of its own, "<service>.<name>": it proceeds on its own, and when
// it fails or lags the others do not notice. A service's second handler of one topic needs it.
func (r Route) Named(name string) Route { r.name = name; return r }

// WithTombstones hands the handler records without a value, too, which say that their key is gone: Meta.Tombstone
// tells, and Data is zero. Without it they are skipped.
func (r Route) WithTombstones() Route { r.tombstones = true; return r }

// From sets where the route's consumer group begins where it has never been: [broker.FromBeginning] unless set. The
// routes of one group begin at the same place; give one that does not a name with [Route.Named].
func (r Route) From(start broker.StartAt) Route { r.start = start; return r }

// checkEmits holds a handler to its declaration.
func (r Route) checkEmits(outs []Out) error {
	for _, o := range outs {
		if !slices.Contains(r.emits, o.Topic) {
			return fmt.Errorf("handler of %s emits %s, which its route does not declare", r.topic, o.Topic)
		}
		if o.timing.kind == cancelTimer {
			continue
		}
		if o.id != [16]byte{} {
			return fmt.Errorf("handler of %s makes %s with New; use Emit, so that a replay gives it the same id", r.topic, o.Topic)
		}
		if o.cause.ID == [16]byte{} {
			return fmt.Errorf("handler of %s makes %s without a cause; use Emit", r.topic, o.Topic)
		}
	}
	return nil
}

// Service is one service's part of the choreography.
type Service struct {
	Name      string // its consumer group, and the source of its events
	Routes    []Route
	Publishes []AnyTopic // events it begins sagas with, outside the routes
}

// groupOf is the consumer group of one of the service's routes.
func (s Service) groupOf(r Route) string {
	if r.name == "" {
		return s.Name
	}
	return s.Name + "." + r.name
}

// groups sorts the routes by consumer group. It fails where two routes of a group have the same topic: one of them
// would starve.
func (s Service) groups() (map[string][]Route, error) {
	if s.Name == "" {
		return nil, errors.New("the service has no name")
	}
	groups := map[string][]Route{}
	for _, r := range s.Routes {
		g := s.groupOf(r)
		if slices.ContainsFunc(groups[g], func(o Route) bool { return o.topic == r.topic }) {
			return nil, fmt.Errorf("%s has two handlers of %s in the group %s; give one of them a name with Named", s.Name, r.topic, g)
		}
		if i := slices.IndexFunc(groups[g], func(o Route) bool { return o.start != r.start }); i >= 0 {
			return nil, fmt.Errorf("%s: the routes of %s and %s in the group %s do not begin at the same place; give one of them a name with Named",
				s.Name, groups[g][i].topic, r.topic, g)
		}
		groups[g] = append(groups[g], r)
	}
	return groups, nil
}

// Permanent marks an error of a handler as one that trying again cannot change: the message becomes a dead letter at
// once.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

func permanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
