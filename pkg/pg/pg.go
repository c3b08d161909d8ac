// Package pg is how a service talks to its own PostgreSQL: a pool, one way to run a transaction, the class of an
// error, schema migrations and group commit.
package pg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	pgxuuid "github.com/vgarvardt/pgx-google-uuid/v5"
)

// Option changes the pool's configuration before it is opened.
type Option func(*pgxpool.Config)

// MaxConns bounds the pool. A service needs few connections: one per consumer, one or two for the relay, a handful for
// HTTP; more only queue inside PostgreSQL instead of outside.
func MaxConns(n int) Option { return func(c *pgxpool.Config) { c.MaxConns = int32(n) } }

// ApplicationName names the service in pg_stat_activity.
func ApplicationName(name string) Option {
	return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["application_name"] = name }
}

// Configure sets what every connection of ours has.
//
// Times are UTC: for the server when it formats them, and for pgx, which reads a timestamptz in the process's own zone
// otherwise.
//
// Statements are planned once, and by their keys. Left alone, PostgreSQL plans a statement while its table is small,
// scans all of it, and goes on to when it no longer is, until the next automatic ANALYZE; or, told to plan each
// execution, spends more on planning a small batch than on running it. Nor does a statement start parallel workers: of
// a large table that was not analyzed yet, PostgreSQL expects thousands of rows for a few keys, and starting workers
// takes a hundred times as long as reading them. A query that is better off with a scan, a hash join or workers, such
// as a report, says so with SET LOCAL in its transaction.
//
// Neither end waits for long for one that is gone: a machine that does not answer costs ten seconds, and so does a
// client that does nothing within a transaction, whose locks the server releases then. These bounds can be set in the
// URL, as in "?idle_in_transaction_session_timeout=60000". A server that hangs while its machine answers is left to the
// callers' contexts.
func Configure(c *pgxpool.Config) {
	params := c.ConnConfig.RuntimeParams
	params["timezone"] = "UTC"
	params["plan_cache_mode"] = "force_generic_plan"
	params["enable_seqscan"], params["enable_hashjoin"], params["enable_mergejoin"] = "off", "off", "off"
	params["max_parallel_workers_per_gather"] = "0"
	bound(c)
	c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
		pgxuuid.Register(conn.TypeMap()) // arrays of ids are most of what statements get, and go as text without it
		conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC}})
		return nil
	}
}

// Open opens a pool on url and waits until the server answers; see [New] and [Await].
func Open(ctx context.Context, url string, opts ...Option) (*pgxpool.Pool, error) {
	pool, err := New(ctx, url, opts...)
	if err != nil {
		return nil, err
	}
	if err := Await(ctx, pool, nil); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// New makes a pool for url, which must parse. Nothing is connected yet.
func New(ctx context.Context, url string, opts ...Option) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse database URL: %w", err)
	}
	Configure(cfg)
	cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	cfg.MaxConns = 16
	for _, o := range opts {
		o(cfg)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.ConnConfig.Database, err)
	}
	return pool, nil
}

// Addr is where the pool's server is: host:port, or the directory of its socket.
func Addr(pool *pgxpool.Pool) string {
	cfg := pool.Config().ConnConfig
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
}

// Await waits until the server answers, with back-off, for as long as ctx lives: services and their databases start in
// any order. failed, unless it is nil, is called after each try that failed. A refusal that waiting does not change
// (wrong password, no such database) is an error at once.
func Await(ctx context.Context, pool *pgxpool.Pool, failed func(error)) error {
	if err := patiently(ctx, failed, func() error { return pool.Ping(ctx) }); err != nil {
		return fmt.Errorf("connect to database %s at %s: %w", pool.Config().ConnConfig.Database, Addr(pool), err)
	}
	return nil
}

// patiently does what a server that starts or stops makes fail again, with back-off, for as long as ctx lives. failed,
// unless it is nil, is told of each fault. When ctx ends, the error names the last one, too.
func patiently(ctx context.Context, failed func(error), do func() error) error {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 50*time.Millisecond, time.Second
	var fault error // the last
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := do()
		if ctx.Err() == nil {
			fault = err
		}
		switch {
		case err == nil:
		case !Transient(err):
			err = backoff.Permanent(err)
		case failed != nil && ctx.Err() == nil:
			failed(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(0))
	if err != nil && ctx.Err() != nil && fault != nil {
		err = fmt.Errorf("%w; %s", err, Reason(fault))
	}
	return err
}

// Reason is why a database could not be reached, in the few words that stand after its address: "connection refused".
func Reason(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Message
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "cannot look up " + dns.Name
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return err.Error()
}
