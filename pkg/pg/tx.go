package pg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Beginner starts transactions: a pool or a connection, or a transaction, which starts a savepoint.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// rollbackTimeout bounds a rollback that runs after the caller's context has ended.
const rollbackTimeout = 5 * time.Second

// InTx runs fn in a transaction and commits it. When fn fails or panics, or the commit does, nothing of it remains,
// with one exception that no client can rule out: a connection lost during COMMIT leaves the outcome unknown, and the
// error is then [Transient], so the caller does the same work again and relies on its own deduplication.
//
// On a pool or one of its connections BEGIN travels with the first statement, and what was handed to [Defer] with the
// COMMIT: a transaction that reads once and then writes takes two round trips.
//
// The rollback has a context of its own. Rolling back with the caller's, as pgx.BeginFunc does, costs the connection
// when that context is the reason for the rollback.
func InTx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error) (err error) {
	tx, release, err := begin(ctx, db)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer release()
	committed := false
	defer func() {
		if committed {
			return
		}
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		// A failed rollback closes the connection, and the server rolls back what it was doing: the first error tells.
		_ = tx.Rollback(rctx)
	}()
	if err := fn(tx); err != nil {
		return withOrigin(ctx, tx, err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", withCause(tx, err))
	}
	committed = true
	return nil
}

// withOrigin marks an error of a transaction's function for [Transient]: as that of a broken connection, or as the
// function's own. The answers of the server are told apart by their codes, and the end of ctx is the caller's, so both
// stay as they are.
func withOrigin(ctx context.Context, tx pgx.Tx, err error) error {
	switch {
	case fromServer(err):
		return err
	case tx.Conn().IsClosed():
		return &originError{err: withCause(tx, err), broken: true}
	case ctx.Err() != nil:
		return err
	}
	return &originError{err: err}
}

// withCause says why pgx calls a transaction closed whose connection broke under an earlier statement.
func withCause(tx pgx.Tx, err error) error {
	if errors.Is(err, pgx.ErrTxClosed) && tx.Conn().IsClosed() {
		return fmt.Errorf("%w: %w", net.ErrClosed, err)
	}
	return err
}

// errNoDatabase is what a nil pool gets, in place of a panic somewhere in pgx.
var errNoDatabase = errors.New("there is no database: the pool is nil; open one with pg.Open")

func begin(ctx context.Context, db Beginner) (tx pgx.Tx, release func(), err error) {
	switch db := db.(type) {
	case nil:
		return nil, nil, errNoDatabase
	case *pgxpool.Pool:
		if db == nil {
			return nil, nil, errNoDatabase
		}
		conn, err := db.Acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		return &pipelined{conn: conn.Conn()}, conn.Release, nil
	case *pgxpool.Conn:
		return &pipelined{conn: db.Conn()}, func() {}, nil
	}
	tx, err = db.Begin(ctx)
	return tx, func() {}, err
}

// Defer runs the statements of b later in tx, in order: together with its next statement or, if there is none, with its
// commit, in that one's round trip. It is for writes whose outcome decides nothing; an error of theirs is one of the
// statement or commit that they travel with. Outside a transaction of [InTx] they run at once.
func Defer(ctx context.Context, tx pgx.Tx, b *pgx.Batch) error {
	if p, ok := tx.(*pipelined); ok {
		p.later = append(p.later, b.QueuedQueries...)
		return nil
	}
	return tx.SendBatch(ctx, b).Close()
}

// pipelined is a transaction that puts BEGIN, deferred statements and COMMIT into the round trips of others.
type pipelined struct {
	conn  *pgx.Conn
	tx    pgx.Tx             // nil until BEGIN was sent
	later []*pgx.QueuedQuery // not sent yet
}

// SendBatch sends b behind what has to go first, whose results it reads itself.
func (p *pipelined) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if p.tx != nil && len(p.later) == 0 {
		return p.tx.SendBatch(ctx, b)
	}
	if p.over() {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	var all pgx.Batch
	if p.tx == nil {
		all.BeginTx(pgx.TxOptions{})
	}
	all.QueuedQueries = append(append(all.QueuedQueries, p.later...), b.QueuedQueries...)
	first := all.QueuedQueries[:len(all.QueuedQueries)-len(b.QueuedQueries)]
	res := p.conn.SendBatch(ctx, &all)
	if p.tx == nil {
		p.tx = res.Tx()
	}
	p.later = nil
	for _, q := range first {
		if err := readResult(res, q); err != nil {
			return failed{res, err}
		}
	}
	return res
}

// over tells whether BEGIN was never done, because the statement behind it could not even be prepared: nothing may run
// then.
func (p *pipelined) over() bool { return p.tx != nil && p.conn.PgConn().TxStatus() == 'I' }

func readResult(res pgx.BatchResults, q *pgx.QueuedQuery) error {
	if q.Fn != nil {
		return q.Fn(res)
	}
	_, err := res.Exec()
	return err
}

// Query is pgx's.
func (p *pipelined) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if p.tx != nil && len(p.later) == 0 {
		return p.tx.Query(ctx, sql, args...)
	}
	var b pgx.Batch
	b.Queue(sql, args...)
	res := p.SendBatch(ctx, &b)
	rows, err := res.Query()
	if err != nil { // pgx has closed the rows then, and so nobody else will
		_ = res.Close()
	}
	return &batchRows{rows, res}, err
}

// QueryRow is pgx's.
func (p *pipelined) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if p.tx != nil && len(p.later) == 0 {
		return p.tx.QueryRow(ctx, sql, args...)
	}
	var b pgx.Batch
	b.Queue(sql, args...)
	res := p.SendBatch(ctx, &b)
	return batchRow{res.QueryRow(), res}
}

// Exec is pgx's.
func (p *pipelined) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if p.tx != nil && len(p.later) == 0 {
		return p.tx.Exec(ctx, sql, args...)
	}
	var b pgx.Batch
	b.Queue(sql, args...)
	res := p.SendBatch(ctx, &b)
	tag, err := res.Exec()
	if closeErr := res.Close(); err == nil {
		err = closeErr
	}
	return tag, err
}

// Commit sends what is left together with COMMIT.
func (p *pipelined) Commit(ctx context.Context) error {
	if p.tx == nil && len(p.later) == 0 {
		return nil
	}
	if p.over() {
		return pgx.ErrTxClosed
	}
	all := pgx.Batch{QueuedQueries: p.later}
	p.later = nil
	committed := true
	if p.tx != nil { // otherwise the batch is a transaction by itself
		all.Queue("commit").Exec(func(tag pgconn.CommandTag) error {
			committed = tag.String() == "COMMIT"
			return nil
		})
	}
	if err := p.conn.SendBatch(ctx, &all).Close(); err != nil {
		return err
	}
	if !committed {
		return pgx.ErrTxCommitRollback
	}
	return nil
}

// Rollback undoes what was sent; what was not is forgotten.
func (p *pipelined) Rollback(ctx context.Context) error {
	p.later = nil
	if p.tx == nil {
		return nil
	}
	return p.tx.Rollback(ctx)
}

// flush sends what waits, for the calls that no batch can carry.
func (p *pipelined) flush(ctx context.Context) error {
	if p.tx != nil && len(p.later) == 0 {
		return nil
	}
	return p.SendBatch(ctx, &pgx.Batch{}).Close()
}

// Begin starts a savepoint.
func (p *pipelined) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.tx.Begin(ctx)
}

// CopyFrom is pgx's.
func (p *pipelined) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, src pgx.CopyFromSource) (int64, error) {
	if err := p.flush(ctx); err != nil {
		return 0, err
	}
	return p.tx.CopyFrom(ctx, table, columns, src)
}

// Prepare is pgx's.
func (p *pipelined) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	return p.conn.Prepare(ctx, name, sql)
}

// LargeObjects is pgx's. They need a statement of the transaction to have run before.
func (p *pipelined) LargeObjects() pgx.LargeObjects {
	if p.tx == nil {
		return pgx.LargeObjects{}
	}
	return p.tx.LargeObjects()
}

// Conn is the connection that the transaction runs on.
func (p *pipelined) Conn() *pgx.Conn { return p.conn }

// batchRows are the rows of a batch's one query: they end with the batch.
type batchRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r *batchRows) Next() bool {
	more := r.Rows.Next()
	if !more {
		r.Close()
	}
	return more
}

func (r *batchRows) Close() {
	r.Rows.Close()
	_ = r.batch.Close() // the rows have the same error
}

type batchRow struct {
	row   pgx.Row
	batch pgx.BatchResults
}

func (r batchRow) Scan(dest ...any) error {
	err := r.row.Scan(dest...)
	if closeErr := r.batch.Close(); err == nil {
		err = closeErr
	}
	return err
}

// failed is a batch of which an earlier statement failed that its sender does not know of.
type failed struct {
	pgx.BatchResults
	err error
}

func (f failed) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, f.err }

func (f failed) Query() (pgx.Rows, error) {
	rows, _ := f.BatchResults.Query()
	return failedRows{rows, f.err}, f.err
}

func (f failed) QueryRow() pgx.Row { return failedRow{f.err} }

func (f failed) Close() error {
	_ = f.BatchResults.Close() // the first error tells
	return f.err
}

type failedRows struct {
	pgx.Rows
	err error
}

func (failedRows) Next() bool          { return false }
func (f failedRows) Err() error        { return f.err }
func (f failedRows) Scan(...any) error { return f.err }

type failedRow struct{ err error }

func (f failedRow) Scan(...any) error { return f.err }
