package search

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/converge-dev/converge/pkg/event"
	"github.com/converge-dev/converge/pkg/readside"
	"github.com/converge-dev/converge/pkg/saga"
)

// Side is search as a read side: what it writes, and from what.
func Side() readside.Side {
	return readside.Side{Name: "search", Tables: []string{"documents"}, Routes: func(to readside.Target) []saga.Route {
		return []saga.Route{
			saga.OnBatch(event.UserProfileUpdated, index(to, userDocument)),
			saga.OnBatch(event.ProductUpdated, index(to, productDocument)),
		}
	}}
}

// Choreography is search's part: it listens, and says nothing.
func Choreography() saga.Service { return Side().Service() }

// index writes down what was told, unless something newer is there: a version that was overtaken changes nothing.
func index[T any](to readside.Target, document func(T) Document) func(context.Context, pgx.Tx, []saga.Msg[T]) ([]saga.Out, error) {
	return func(ctx context.Context, tx pgx.Tx, msgs []saga.Msg[T]) ([]saga.Out, error) {
		docs := make([]Document, len(msgs))
		for i, m := range msgs {
			docs[i] = document(m.Data)
		}
		return nil, save(ctx, tx, to, newest(docs))
	}
}
