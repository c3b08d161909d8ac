package pg_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
	"github.com/converge-dev/converge/testkit/pgtest"
)

// later defers an insert of each number.
func later(ctx context.Context, tx pgx.Tx, numbers ...int) error {
	var b pgx.Batch
	for _, n := range numbers {
		b.Queue(`INSERT INTO t VALUES ($1)`, n)
	}
	return pg.Defer(ctx, tx, &b)
}

// Deferred statements run in order with whatever comes next, and are seen by it, in every way a statement can be run.
func TestDeferredStatementsGoFirst(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	const howMany = `SELECT count(*) FROM t`
	ways := map[string]func(tx pgx.Tx) (n int, err error){
		"QueryRow": func(tx pgx.Tx) (n int, err error) { return n, tx.QueryRow(ctx, howMany).Scan(&n) },
		"Query": func(tx pgx.Tx) (int, error) {
			rows, _ := tx.Query(ctx, howMany)
			return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
		},
		"rows read to their end and not closed": func(tx pgx.Tx) (n int, err error) {
			rows, err := tx.Query(ctx, howMany)
			if err != nil {
				return 0, err
			}
			for rows.Next() {
				if err := rows.Scan(&n); err != nil {
					return 0, err
				}
			}
			return n, rows.Err()
		},
		"Exec": func(tx pgx.Tx) (int, error) {
			tag, err := tx.Exec(ctx, `UPDATE t SET n = n`)
			return int(tag.RowsAffected()), err
		},
		"SendBatch": func(tx pgx.Tx) (n int, err error) {
			var b pgx.Batch
			b.Queue(howMany).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
			return n, tx.SendBatch(ctx, &b).Close()
		},
		"a savepoint": func(tx pgx.Tx) (n int, err error) {
			return n, pg.InTx(ctx, tx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, howMany).Scan(&n) })
		},
		"CopyFrom": func(tx pgx.Tx) (n int, err error) {
			if _, err := tx.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows(nil)); err != nil {
				return 0, err
			}
			return n, tx.QueryRow(ctx, howMany).Scan(&n)
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, "t", table)
			err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
				if err := later(ctx, tx, 1, 2); err != nil {
					return err
				}
				if n, err := way(tx); err != nil || n != 2 {
					t.Errorf("the first statement sees %d rows, %v; want the 2 that were deferred", n, err)
				}
				if err := later(ctx, tx, 3); err != nil {
					return err
				}
				if n, err := way(tx); err != nil || n != 3 {
					t.Errorf("a later statement sees %d rows, %v; want 3", n, err)
				}
				return later(ctx, tx, 4)
			})
			if n := count(t, db); err != nil || n != 4 {
				t.Errorf("%d rows after the commit, %v; want 4", n, err)
			}
		})
	}
}

// What fails, wherever it does, undoes all, and the error is the failing statement's own.
func TestFailedTransactionsLeaveNothing(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	divide := func(tx pgx.Tx) error {
		var b pgx.Batch
		b.Queue(`SELECT 1/(SELECT count(*) - count(*) FROM t)`)
		return pg.Defer(ctx, tx, &b)
	}
	for name, fn := range map[string]func(tx pgx.Tx) error{
		"deferred, with the commit": divide,
		"deferred, behind a write":  func(tx pgx.Tx) error { return errors.Join(insert(ctx, tx, 1), later(ctx, tx, 2), divide(tx)) },
		"deferred, before a query": func(tx pgx.Tx) error {
			if err := errors.Join(later(ctx, tx, 1), divide(tx)); err != nil {
				return err
			}
			rows, _ := tx.Query(ctx, `SELECT n FROM t`)
			_, err := pgx.CollectRows(rows, pgx.RowTo[int])
			return err
		},
		"deferred, before a row": func(tx pgx.Tx) error {
			var n int
			return errors.Join(later(ctx, tx, 1), divide(tx), tx.QueryRow(ctx, `SELECT n FROM t`).Scan(&n))
		},
		"deferred, before a batch": func(tx pgx.Tx) error {
			var b pgx.Batch
			b.Queue(`INSERT INTO t VALUES (2)`)
			return errors.Join(later(ctx, tx, 1), divide(tx), tx.SendBatch(ctx, &b).Close())
		},
		"the first statement": func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `SELECT 1/(SELECT count(*) - count(*) FROM t)`)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, "t", table)
			err := pg.InTx(ctx, db, fn)
			if cause, ok := errors.AsType[*pgconn.PgError](err); !ok || cause.Code != "22012" {
				t.Errorf("error %v, want the division by zero", err)
			}
			if n := count(t, db); n != 0 {
				t.Errorf("%d rows remain", n)
			}
		})
	}
}

// An error that the function keeps to itself must not turn into a commit that did nothing.
func TestSwallowedErrorIsNoCommit(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	err := pg.InTx(t.Context(), db, func(tx pgx.Tx) error {
		if err := insert(t.Context(), tx, 1); err != nil {
			return err
		}
		_, _ = tx.Exec(t.Context(), `SELECT 1/0`)
		return nil
	})
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("error %v, want ErrTxCommitRollback", err)
	}
}

// When the first statement cannot be prepared, BEGIN is not done either. Whatever the function makes of that, nothing
// runs, and nothing is said to be committed.
func TestNothingRunsWithoutBegin(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	boom := errors.New("boom")
	for name, next := range map[string]func(tx pgx.Tx) error{
		"nothing":             func(pgx.Tx) error { return nil },
		"a deferred write":    func(tx pgx.Tx) error { return later(ctx, tx, 1) },
		"a write":             func(tx pgx.Tx) error { return insert(ctx, tx, 1) },
		"both, and a failure": func(tx pgx.Tx) error { return errors.Join(later(ctx, tx, 2), insert(ctx, tx, 3), boom) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t, "t", table)
			err := pg.InTx(ctx, db, func(tx pgx.Tx) error {
				_, _ = tx.Exec(ctx, `SELECT * FROM nowhere`)
				return next(tx)
			})
			if err == nil {
				t.Error("it is said to be committed")
			}
			if n := count(t, db); n != 0 {
				t.Errorf("%d rows were written", n)
			}
		})
	}
}

// A failed first query costs the transaction, not the connection, also where its rows are never closed.
func TestFailedQueryKeepsTheConnection(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t, "t", table)
	conn, err := db.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	err = pg.InTx(t.Context(), conn, func(tx pgx.Tx) error {
		if err := later(t.Context(), tx, 1, 1); err != nil {
			return err
		}
		rows, err := tx.Query(t.Context(), `SELECT n FROM t`)
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	})
	if violation, ok := errors.AsType[*pgconn.PgError](err); !ok || violation.Code != "23505" {
		t.Errorf("error %v, want the deferred statement's", err)
	}
	if conn.Conn().IsClosed() {
		t.Error("the connection was closed")
	}
}

// Two statements and the commit cost what travels: begin and read, write and commit.
func BenchmarkReadThenWrite(b *testing.B) {
	db := pgtest.New(b, "t", table)
	for name, write := range map[string]func(context.Context, pgx.Tx, int) error{
		"at once":  func(ctx context.Context, tx pgx.Tx, n int) error { return insert(ctx, tx, n) },
		"deferred": func(ctx context.Context, tx pgx.Tx, n int) error { return later(ctx, tx, n) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := readThenWrite(b.Context(), db, write); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func readThenWrite(ctx context.Context, db *pgxpool.Pool, write func(context.Context, pgx.Tx, int) error) error {
	return pg.InTx(ctx, db, func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `SELECT coalesce(max(n), 0) + 1 FROM t`).Scan(&n); err != nil {
			return err
		}
		return write(ctx, tx, n)
	})
}
