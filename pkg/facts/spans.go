package facts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/pg"
)

// Spans holds a database to its rules at the cost of what is new, and not of what is stored (docs/adr/0014-checker.md).
// Its rows are numbered and never changed, so spans of them are closed, and their sums kept: an audit adds what has
// come since. That closed spans are still what they were is proved by reading them again, in turns: a new row that is
// wrong is found at once, and an old one that somebody has changed within the time of one turn.
//
// Any number of audits may run. The tables audit_horizon and audit_spans are what it knows; each step is a transaction,
// and the next audit goes on from there.
type Spans struct {
	DB       *pgxpool.Pool
	Rows     string // what the rows are, such as "entries"
	Changed  string // the kind of a closed span that is not what it was
	Sequence string // which numbers the rows
	Size     string // SQL: how many rows there are to be audited, if more than the sequence has numbered

	// Digest is SQL: how many rows have numbers above $1 and up to $2, and the XOR of their hashes. It is one
	// statement.
	Digest string
	// Sum queues what adds the sums of such rows to those that are kept, and Forget what deletes them.
	Sum    func(b *pgx.Batch, after, upto int64)
	Forget func(b *pgx.Batch)
	// Rules holds what is in a closed span to the rules. A span in which something breaks them is read each time until
	// nothing does. nil: no rule is about the rows of a span alone.
	Rules func(ctx context.Context, after, upto int64) ([]Breach, error)
	// New holds what has come after the sums that are kept, together with them, to the rules, and All everything.
	New func(ctx context.Context, after, last int64) ([]Breach, error)
	All func(ctx context.Context) ([]Breach, error)

	Reread time.Duration // all closed spans are read again within it
	Grace  time.Duration // how long after it was numbered a row may be without a transaction's id
	Most   time.Duration // spans are closed, and then read again, for so long in one audit, and one at least; the next one goes on
	Small  int64         // a database of no more rows is read whole each time
	Width  int64         // numbers of a span; what is stored was made with the same
}

// What services set of [Spans].
const (
	SmallAudit = 1_000_000
	SpanWidth  = 100_000
	SpanGrace  = time.Minute
	SpanMost   = 8 * time.Second
)

// Audit returns what breaks the rules. full reads everything now, whatever is closed; so does the audit of a database
// of which less than half is, as the first is.
func (s Spans) Audit(ctx context.Context, full bool) (found []Breach, err error) {
	var last, size int64
	if err = s.DB.QueryRow(ctx, `SELECT last_value FROM `+s.Sequence).Scan(&last); err != nil {
		return nil, fmt.Errorf("read how many %s there are: %w", s.Rows, err)
	}
	if size = last; s.Size != "" {
		if err = s.DB.QueryRow(ctx, s.Size).Scan(&size); err != nil {
			return nil, fmt.Errorf("read how much there is to audit: %w", err)
		}
	}
	if size <= s.Small {
		return s.All(ctx)
	}
	if err := s.settle(ctx, last); err != nil {
		return nil, err
	}
	if err := s.closeAll(ctx); err != nil {
		return nil, err
	}
	if found, err = s.readAgain(ctx); err != nil {
		return nil, err
	}
	if err := s.closeAll(ctx); err != nil { // the sums are made anew where something has changed
		return nil, err
	}
	after, err := s.summedUpTo(ctx, s.DB)
	if err != nil {
		return nil, err
	}
	some, err := s.unclosed(ctx, after, last, full)
	if err != nil {
		return nil, err
	}
	return distinct(append(found, some...)), nil
}

// unclosed holds to the rules what the closed spans do not answer for, or everything.
func (s Spans) unclosed(ctx context.Context, after, last int64, full bool) (found []Breach, err error) {
	if open := last - after; !full && (open <= s.Small || open <= last/2) {
		return s.New(ctx, after, last)
	}
	found, err = s.All(ctx)
	if err == nil && len(found) == 0 {
		_, err = s.DB.Exec(ctx, clearedSQL)
	}
	return found, err
}

const (
	// settleSQL moves the horizon: numbers that were given when it was stored are settled when all transactions of that
	// time have ended. That $1 was read before this statement began matters: whoever has a number of no more has one of
	// the transactions of its snapshot, or none yet, for less than the grace. A horizon of another server's
	// transactions, in a copy, is stored anew.
	settleSQL = `INSERT INTO audit_horizon AS h (n, xid, at) VALUES ($1, pg_snapshot_xmax(pg_current_snapshot()), now())
ON CONFLICT (one) DO UPDATE SET settled = CASE WHEN h.xid <= pg_snapshot_xmin(pg_current_snapshot()) THEN h.n ELSE h.settled END,
    n = excluded.n, xid = excluded.xid, at = excluded.at
WHERE h.at <= now() - $2::interval AND h.xid <= pg_snapshot_xmin(pg_current_snapshot()) OR h.xid > pg_snapshot_xmax(pg_current_snapshot())`

	lockHorizonSQL = `SELECT settled, closed, summed FROM audit_horizon FOR UPDATE`

	addSpanSQL = `INSERT INTO audit_spans (span, entries, digest, seen, suspect) VALUES ($1, $2, $3, $3, $4)`

	suspectSQL = `UPDATE audit_spans SET suspect = $2 WHERE span = $1 AND suspect <> $2`
	doubtSQL   = `UPDATE audit_spans SET suspect = true WHERE NOT suspect`
	clearedSQL = `UPDATE audit_spans SET suspect = false WHERE suspect`

	closedSQL = `UPDATE audit_horizon SET closed = closed + 1`
	summedSQL = `UPDATE audit_horizon SET summed = summed + 1`

	summedUpToSQL = `SELECT summed FROM audit_horizon`
)

// summedUpTo is the last number that the kept sums answer for.
func (s Spans) summedUpTo(ctx context.Context, db Querier) (after int64, err error) {
	rows, _ := db.Query(ctx, summedUpToSQL) // the error surfaces in the collector
	after, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, fmt.Errorf("read how many spans are closed: %w", err)
	}
	return after * s.Width, nil
}

// Doubt has all closed spans read again before their turn: what is kept of them contradicts something else.
func (s Spans) Doubt(ctx context.Context) error {
	if _, err := s.DB.Exec(ctx, doubtSQL); err != nil {
		return fmt.Errorf("have closed spans read again: %w", err)
	}
	return nil
}

// settle moves the horizon, below which no row comes any more.
func (s Spans) settle(ctx context.Context, last int64) error {
	if _, err := s.DB.Exec(ctx, settleSQL, last, s.Grace); err != nil {
		return fmt.Errorf("store the audit's horizon: %w", err)
	}
	return nil
}

// closeAll closes the spans that are settled.
func (s Spans) closeAll(ctx context.Context) error {
	for began := time.Now(); ; {
		if more, err := s.close(ctx); err != nil || !more || time.Since(began) > s.Most {
			return err
		}
	}
}

// rules holds what is in a closed span to the rules. One that has just been closed, or in which something breaks them,
// is read each time until nothing does.
func (s Spans) rules(ctx context.Context, span int64) (found []Breach, err error) {
	if s.Rules != nil {
		if found, err = s.Rules(ctx, span*s.Width, (span+1)*s.Width); err != nil {
			return nil, err
		}
	}
	if _, err := s.DB.Exec(ctx, suspectSQL, span, len(found) > 0); err != nil {
		return nil, fmt.Errorf("store whether a span of %s breaks a rule: %w", s.Rows, err)
	}
	return found, nil
}

// close sums up the next span that is closed, or closes the next one that is settled. more is false where there is
// none.
func (s Spans) close(ctx context.Context) (more bool, err error) {
	err = pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		var settled, closed, summed int64
		if err := tx.QueryRow(ctx, lockHorizonSQL).Scan(&settled, &closed, &summed); err != nil {
			return err
		}
		var b pgx.Batch
		switch {
		case summed < closed:
			s.Sum(&b, summed*s.Width, (summed+1)*s.Width)
			b.Queue(summedSQL)
		case (closed+1)*s.Width <= settled:
			n, digest, err := s.digest(ctx, tx, closed)
			if err != nil {
				return err
			}
			b.Queue(addSpanSQL, closed, n, digest, s.Rules != nil)
			b.Queue(closedSQL)
		default:
			return nil
		}
		more = true
		return pg.Defer(ctx, tx, &b)
	})
	if err != nil {
		return false, fmt.Errorf("close a span of %s: %w", s.Rows, err)
	}
	return more, nil
}

func (s Spans) digest(ctx context.Context, tx pgx.Tx, span int64) (entries, digest int64, err error) {
	err = tx.QueryRow(ctx, s.Digest, span*s.Width, (span+1)*s.Width).Scan(&entries, &digest)
	return entries, digest, err
}

const (
	// dueSpansSQL selects those that something is or may be wrong with, and as many others as the time since the last
	// look is of a turn, one at least.
	dueSpansSQL = `SELECT span FROM audit_spans ORDER BY changed_at IS NULL AND NOT suspect, read_at, span LIMIT (SELECT count(*) FILTER (WHERE changed_at IS NOT NULL OR suspect) +
    greatest(1, ceil(count(*) * extract(epoch FROM now() - max(read_at)) / extract(epoch FROM $1::interval)))::bigint FROM audit_spans)`

	lockSpanSQL = `SELECT entries, digest, seen, coalesce(changed_at <= now() - $2::interval, false) FROM audit_spans WHERE span = $1 FOR UPDATE`

	sameSpanSQL = `UPDATE audit_spans SET read_at = now() WHERE span = $1`

	// changedSpanSQL tells a change for as long as a turn takes.
	changedSpanSQL = `UPDATE audit_spans SET seen = $2, read_at = now(), changed_at = CASE WHEN digest <> $2 THEN coalesce(changed_at, now()) END WHERE span = $1`

	acceptSpanSQL = `UPDATE audit_spans SET digest = seen, entries = $2, read_at = now(), changed_at = NULL WHERE span = $1`

	sumAnewSQL = `UPDATE audit_horizon SET summed = 0`
)

// readAgain reads the closed spans whose turn it is, holds them to what they were, and what they are to the rules. The
// sums are made anew when one has changed.
func (s Spans) readAgain(ctx context.Context) (found []Breach, err error) {
	rows, _ := s.DB.Query(ctx, dueSpansSQL, s.Reread) // the error surfaces in the collector
	due, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look for spans of %s whose turn it is: %w", s.Rows, err)
	}
	began := time.Now()
	for i, span := range due {
		if i > 0 && time.Since(began) > s.Most {
			break
		}
		changed, err := s.readSpan(ctx, span)
		if err != nil {
			return nil, fmt.Errorf("read the %s from %d on again: %w", s.Rows, span*s.Width+1, err)
		}
		some, err := s.rules(ctx, span)
		if err != nil {
			return nil, err
		}
		found = append(found, append(changed, some...)...)
	}
	return found, nil
}

func (s Spans) readSpan(ctx context.Context, span int64) (found []Breach, err error) {
	err = pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		var settled, closed, summed, entries, digest, seen int64
		var old bool
		if err := tx.QueryRow(ctx, lockHorizonSQL).Scan(&settled, &closed, &summed); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, lockSpanSQL, span, s.Reread).Scan(&entries, &digest, &seen, &old); err != nil {
			return err
		}
		n, is, err := s.digest(ctx, tx, span)
		if err != nil {
			return err
		}
		var b pgx.Batch
		switch {
		case is != seen:
			b.Queue(changedSpanSQL, span, is)
			s.Forget(&b)
			b.Queue(sumAnewSQL)
		case is != digest && old:
			b.Queue(acceptSpanSQL, span, n)
			digest = is
		default:
			b.Queue(sameSpanSQL, span)
		}
		if is != digest {
			found = []Breach{{
				Kind: s.Changed, Subject: fmt.Sprintf("%s %d to %d", s.Rows, span*s.Width+1, (span+1)*s.Width),
				Detail: fmt.Sprintf("there are %d, and they are not the %d that there were when they were audited: somebody has changed, added or deleted some since", n, entries),
			}}
		}
		return pg.Defer(ctx, tx, &b)
	})
	return found, err
}

// MostBreaches is how many breaches one statement selects at most.
const MostBreaches = breaches

// Querier is a pool or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// BreachesOf are the rows of a statement that selects kinds, subjects and details.
func BreachesOf(ctx context.Context, db Querier, sql string, args ...any) ([]Breach, error) {
	rows, _ := db.Query(ctx, sql, args...) // the error surfaces in the collector
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Breach])
}

// distinct leaves out what is found twice.
func distinct(found []Breach) []Breach {
	slices.SortFunc(found, func(x, y Breach) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Subject, y.Subject))
	})
	return slices.CompactFunc(found, func(x, y Breach) bool { return x.Kind == y.Kind && x.Subject == y.Subject })
}

// SumsPlan is how sums of much are planned: by hashes, and by the index of the rows' numbers, and all as of one moment.
var SumsPlan = []string{`SET TRANSACTION ISOLATION LEVEL REPEATABLE READ`, `SET LOCAL enable_hashjoin = on`, `SET LOCAL plan_cache_mode = force_custom_plan`,
	`SET LOCAL max_parallel_workers_per_gather = 2`}

// AsOfOneMoment runs fn in a transaction that sees the database as of one moment, planned by [SumsPlan], with the last
// number that the kept sums answer for.
func (s Spans) AsOfOneMoment(ctx context.Context, fn func(tx pgx.Tx, after int64) error) error {
	return pg.InTx(ctx, s.DB, func(tx pgx.Tx) error {
		var plan pgx.Batch
		for _, set := range SumsPlan {
			plan.Queue(set)
		}
		if err := pg.Defer(ctx, tx, &plan); err != nil {
			return err
		}
		after, err := s.summedUpTo(ctx, tx)
		if err != nil {
			return err
		}
		return fn(tx, after)
	})
}
