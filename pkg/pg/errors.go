package pg

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Transient tells whether err is a fault of the infrastructure, which the same work may survive when done again: the
// connection, a server that starts, stops or is out of room, a deadlock or a serialization failure. Everything else
// (a violated constraint, bad SQL, a handler's own error) will come back however often it is tried.
//
// An error of [InTx] is judged by where it arose: what its function returned while the connection lived, and what is no
// answer of PostgreSQL, is the function's own, be it io.EOF or a net.Error. What came with a broken connection is not.
func Transient(err error) bool {
	if err == nil {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return transientCode(pgErr.Code)
	}
	if origin, ok := errors.AsType[*originError](err); ok {
		return origin.broken
	}
	var connErr *pgconn.ConnectError
	var netErr net.Error
	switch {
	case errors.As(err, &connErr),
		errors.As(err, &netErr),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, pgx.ErrTxCommitRollback),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return true
	}
	return pgconn.SafeToRetry(err) || errConnClosed(err)
}

// transientCode classifies an SQLSTATE (PostgreSQL manual, appendix A).
func transientCode(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", // connection exception
		"53", // insufficient resources: disk full, out of memory, too many connections
		"58": // system error: I/O error
		return true
	}
	switch code {
	case "40001", // serialization_failure
		"40P01", // deadlock_detected
		"55P03", // lock_not_available
		"57014", // query_canceled: a statement_timeout or an operator
		"57P01", // admin_shutdown
		"57P02", // crash_shutdown
		"57P03", // cannot_connect_now
		"57P05", // idle_session_timeout
		"25006", // read_only_sql_transaction: a failover in progress
		"25P03", // idle_in_transaction_session_timeout
		"25P04": // transaction_timeout
		return true
	}
	return false
}

// TimedOut tells whether err says that the time for a piece of work was over: that of a context, or one that the server
// keeps for a statement or a transaction. It is [Transient], but work that takes longer than it may fails so each time.
func TimedOut(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "57014", "25P03", "25P04":
			return true
		}
		return false
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// originError is an error of a transaction's function with the place that it came from.
type originError struct {
	err    error
	broken bool // the connection was; otherwise the function failed by itself
}

func (e *originError) Error() string { return e.err.Error() }
func (e *originError) Unwrap() error { return e.err }

func fromServer(err error) bool {
	_, ok := errors.AsType[*pgconn.PgError](err)
	return ok
}

// Violates tells whether err comes from a statement that broke this constraint, by its name.
func Violates(err error, constraint string) bool {
	violation, ok := errors.AsType[*pgconn.PgError](err)
	return ok && violation.ConstraintName == constraint
}

// errConnClosed recognises pgx's "conn closed", which has no exported value: a connection that broke earlier in the
// same transaction.
func errConnClosed(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == "conn closed" {
			return true
		}
	}
	return false
}
