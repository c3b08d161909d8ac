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
func Transient(err error) bool {
	if err == nil {
		return false
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return transientCode(pgErr.Code)
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
		"25P03": // idle_in_transaction_session_timeout
		return true
	}
	return false
}

// errConnClosed recognises pgx's "conn closed", which has no exported value: a connection that broke earlier in the
// same transaction.
// Violates tells whether err comes from a statement that broke this constraint, by its name.
func Violates(err error, constraint string) bool {
	violation, ok := errors.AsType[*pgconn.PgError](err)
	return ok && violation.ConstraintName == constraint
}

func errConnClosed(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == "conn closed" {
			return true
		}
	}
	return false
}
