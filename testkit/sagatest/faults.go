package sagatest

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// fault is what happens to a transaction when it is about to commit. It is in the transaction's context, where tracer
// finds it.
type fault struct {
	crash func() // ends the transaction's context; nil: nothing

	// The transaction waits at its commit: it closes reached and goes on when release is closed. nil: it does not.
	reached, release chan struct{}
	waited           bool
}

type faultKey struct{}

func (f *fault) in(ctx context.Context) context.Context { return context.WithValue(ctx, faultKey{}, f) }

// tracer is on every connection that handlers use. The engine sends COMMIT behind the statements that record what was
// handled.
type tracer struct{}

// TraceBatchStart is called before a batch is sent.
func (tracer) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	f, _ := ctx.Value(faultKey{}).(*fault)
	queries := data.Batch.QueuedQueries
	if f == nil || len(queries) < 2 || queries[len(queries)-1].SQL != "commit" {
		return ctx
	}
	if f.crash != nil {
		f.crash()
	}
	if f.reached != nil && !f.waited {
		f.waited = true
		close(f.reached)
		select {
		case <-f.release:
		case <-ctx.Done():
		}
	}
	return ctx
}

// TraceBatchQuery is one of [pgx.BatchTracer].
func (tracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd is one of [pgx.BatchTracer].
func (tracer) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// TraceQueryStart is one of [pgx.QueryTracer], which a tracer has to be.
func (tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

// TraceQueryEnd is one of [pgx.QueryTracer].
func (tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
