package saga

import (
	"context"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/broker"
	"github.com/converge-dev/converge/pkg/pg"
)

// Replay runs records, as they were read from their topics, through the routes of a service that only writes down what
// it is told, in one transaction: without an inbox, for everything is to be handled once more, and without an outbox,
// for all that had to be said was. A handler that emits is an error. also runs at the end of the transaction.
//
// A record that cannot be decoded, or whose handler fails for a reason of its own, is left out, logged, and counted for
// also: it became a dead letter when it came first. After a fault of the infrastructure, which is returned, nothing of
// the records remains, or some of them when another of their number failed before.
func Replay(ctx context.Context, db pg.Beginner, svc Service, log *slog.Logger, records []broker.Record, also func(tx pgx.Tx, handled, left int) error) error {
	e := &executor{service: svc.Name, group: svc.Name, routes: svc.Routes, log: log, metrics: NewMetrics(nil)}
	groups, err := svc.groups()
	if err != nil {
		return err
	}
	items := make([]*item, 0, len(records))
	for i := range records {
		it := e.item(records[i])
		if _, mine := groups[markedFor(it.redrive)]; it.redrive != "" && !mine {
			continue // put back for another service: what it tells was told before
		}
		it.inboxID = it.meta.ID // and so it was where it is put back for this one
		items = append(items, it)
	}
	items = distinct(items, nil)
	err = e.replay(ctx, db, items, also)
	if err == nil || pg.Transient(err) {
		return err
	}
	for _, it := range items {
		err := e.replay(ctx, db, []*item{it}, also)
		if err != nil && !pg.Transient(err) && it.dead == nil {
			it.dead = err
			err = e.replay(ctx, db, []*item{it}, also)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *executor) replay(ctx context.Context, db pg.Beginner, items []*item, also func(tx pgx.Tx, handled, left int) error) error {
	left := 0
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		works := make([]work, len(e.routes))
		picked := make([][]int, len(e.routes))
		for _, it := range items {
			if it.dead == nil {
				it.dead = e.decode(it, works, picked)
			}
			if it.dead != nil {
				left++
			}
		}
		for i, w := range works {
			if len(picked[i]) == 0 {
				continue
			}
			outs, err := e.run(ctx, tx, w, picked[i])
			if err != nil {
				return err
			}
			if len(outs) > 0 {
				return fmt.Errorf("the handler of %s emits %s: what it says cannot be said again", e.routes[i].topic, outs[0].Topic)
			}
		}
		return also(tx, len(items)-left, left)
	})
	if err != nil || left == 0 {
		return err
	}
	for _, it := range items {
		if it.dead != nil {
			e.log.WarnContext(withTrace(ctx, it.meta), "left out", "topic", it.record.Topic, "partition", it.record.Partition,
				"offset", it.record.Offset, "key", it.meta.Key, "reason", reason(it.dead))
		}
	}
	return nil
}

// ReactsTo lists the topics that the service has routes for, each once.
func (s Service) ReactsTo() []string {
	var topics []string
	for _, r := range s.Routes {
		if !slices.Contains(topics, r.topic) {
			topics = append(topics, r.topic)
		}
	}
	return topics
}

// Groups lists the service's consumer groups, by name, with the topics of each.
func (s Service) Groups() (map[string][]string, error) {
	groups, err := s.groups()
	if err != nil {
		return nil, err
	}
	topics := make(map[string][]string, len(groups))
	for name, routes := range groups {
		for _, r := range routes {
			topics[name] = append(topics[name], r.topic)
		}
	}
	return topics, nil
}
