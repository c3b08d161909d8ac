package pg_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// Whatever a function fails with while its connection lives is its own, and whatever it fails with when it does not is
// not.
func TestOriginOfAnError(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	ctx := t.Context()
	for _, own := range []error{io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, net.ErrClosed,
		&net.DNSError{Err: "no such host"}, &net.OpError{Op: "dial", Err: errors.New("refused")}, &pgconn.ConnectError{}} {
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			return errors.Join(insert(ctx, tx, 1), fmt.Errorf("unpack: %w", own))
		})
		if !errors.Is(err, own) || pg.Transient(fmt.Errorf("handle: %w", err)) {
			t.Errorf("%T %v of a function whose connection lives: transient, want its own", own, err)
		}
		err = pg.InTx(ctx, db, func(pgx.Tx) error { return own }) // nothing was sent at all
		if pg.Transient(err) {
			t.Errorf("%T %v of a function that asked nothing: transient", own, err)
		}
	}
	for name, code := range map[string]string{"deadlock": "40P01", "transaction timeout": "25P04", "statement timeout": "57014"} {
		err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '`+code+`'; END $$`)
			return err
		})
		if !pg.Transient(err) {
			t.Errorf("%s: %v is not transient", name, err)
		}
	}
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		_, _ = tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
		return errors.New("could not read the stock")
	})
	if !pg.Transient(err) {
		t.Errorf("a function that hides why its connection is gone: %v is not transient", err)
	}
	over, cancel := context.WithCancel(ctx)
	err = pg.InTx(over, db, func(pgx.Tx) error { cancel(); return over.Err() })
	if !pg.Transient(err) {
		t.Errorf("the caller's own end: %v is not transient", err)
	}
}

// A step that fails, in a statement, in what it defers or by itself, costs nothing but itself.
func TestSteps(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db := pgtest.New(t, "t", table)
	err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
		if err := later(ctx, tx, 1); err != nil {
			return err
		}
		steps, err := pg.NewSteps(ctx, tx)
		if err != nil {
			return err
		}
		good := 1
		for name, fail := range map[string]func() error{
			"in a statement": func() error { return errors.Join(insert(ctx, tx, 50), query(ctx, tx, `SELECT 1/0`)) },
			"in preparing":   func() error { return query(ctx, tx, `SELECT nothing FROM nowhere`) },
			"in what it defers": func() error {
				var b pgx.Batch
				b.Queue(`INSERT INTO t VALUES (51)`)
				b.Queue(`SELECT 1/(SELECT count(*) - count(*) FROM t)`)
				return pg.Defer(ctx, tx, &b)
			},
			"by itself":           func() error { return errors.Join(later(ctx, tx, 52), io.EOF) },
			"by itself, at once":  func() error { return io.EOF },
			"behind a swallowed":  func() error { _ = query(ctx, tx, `SELECT 1/0`); return nil },
			"with more than once": func() error { return errors.Join(query(ctx, tx, `SELECT 1/0`), query(ctx, tx, `SELECT 1`)) },
		} {
			if failed, lost := steps.Do(ctx, fail); failed == nil || lost != nil || pg.Transient(failed) {
				t.Errorf("%s: failed %v, lost %v", name, failed, lost)
			}
			if failed, lost := steps.Do(ctx, func() error { good++; return later(ctx, tx, good) }); failed != nil || lost != nil {
				t.Errorf("after %s: failed %v, lost %v", name, failed, lost)
			}
		}
		return later(ctx, tx, 100)
	})
	if n := count(t, db); err != nil || n != 9 {
		t.Errorf("%d rows, %v; want those of the 7 steps that passed, of before and of after", n, err)
	}
	err = pg.InTx(ctx, db, func(tx pgx.Tx) error {
		steps, err := pg.NewSteps(ctx, tx)
		if err != nil {
			return err
		}
		failed, lost := steps.Do(ctx, func() error { return query(ctx, tx, `SELECT pg_terminate_backend(pg_backend_pid())`) })
		if failed == nil || lost == nil {
			t.Errorf("a connection that is gone: failed %v, lost %v", failed, lost)
		}
		return lost
	})
	if !pg.Transient(err) {
		t.Errorf("a connection that is gone: %v is not transient", err)
	}
}

func query(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Exec(ctx, sql)
	return err
}
