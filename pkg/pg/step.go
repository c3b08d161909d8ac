package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Steps are parts of one transaction of which one can fail without the others. A step that passes costs one round trip
// more than its statements: the next one's savepoint is set in it. One that fails by itself costs none: what undoes it
// travels with the next statement.
type Steps struct {
	tx   pgx.Tx
	lost error // why no more steps are possible
}

// NewSteps begins with the first step of tx. What was done and deferred before stays, whatever becomes of the steps.
func NewSteps(ctx context.Context, tx pgx.Tx) (*Steps, error) {
	if _, err := tx.Exec(ctx, "SAVEPOINT step"); err != nil {
		return nil, fmt.Errorf("set a savepoint: %w", err)
	}
	return &Steps{tx: tx}, nil
}

// Do runs fn as one step, with what it defers. When it fails, nothing of it remains and the next step may begin, unless
// lost is an error, too: then the transaction cannot go on. An error of fn's own is not [Transient], as with [InTx].
func (s *Steps) Do(ctx context.Context, fn func() error) (failed, lost error) {
	if s.lost != nil {
		return s.lost, s.lost
	}
	failed = fn()
	if failed == nil {
		var b pgx.Batch
		b.Queue("RELEASE SAVEPOINT step")
		b.Queue("SAVEPOINT step")
		failed = s.tx.SendBatch(ctx, &b).Close()
	}
	if failed == nil {
		return nil, nil
	}
	failed = withOrigin(ctx, s.tx, failed)
	if s.tx.Conn().IsClosed() || ctx.Err() != nil {
		s.lost = failed
		return failed, failed
	}
	if err := s.undo(ctx); err != nil {
		s.lost = fmt.Errorf("roll back to a savepoint: %w", err)
	}
	return failed, s.lost
}

// undo rolls back to the savepoint, with the next statement where that is possible: a transaction that a statement has
// failed in takes no other, and cannot even prepare one.
func (s *Steps) undo(ctx context.Context) error {
	const rollback = "ROLLBACK TO SAVEPOINT step"
	if p, ok := s.tx.(*pipelined); ok {
		p.later = nil
		if p.conn.PgConn().TxStatus() == 'T' {
			var b pgx.Batch
			b.Queue(rollback)
			return Defer(ctx, p, &b)
		}
	}
	_, err := s.tx.Exec(ctx, rollback)
	return err
}
