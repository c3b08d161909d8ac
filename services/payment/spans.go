package payment

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/converge-dev/converge/pkg/facts"
	"github.com/converge-dev/converge/pkg/pg"
)

// auditor holds the ledger to its rules, at the cost of what is new and not of what is stored (docs/adr/0014-checker.md). Entries are numbered and never
// changed, so spans of them are closed, and their sums kept: an audit adds what has come since. That closed spans are still what they were is proved
// by reading them again, in turns: a new entry that is wrong is found at once, and an old one that somebody has changed within the time of one turn.
//
// Any number of audits may run. The tables audit_* are what it knows; each step is a transaction, and the next audit goes on from there.
type auditor struct {
	db     *pgxpool.Pool
	reread time.Duration // all closed spans are read again within it
	grace  time.Duration // how long after it was numbered an entry may be without a transaction's id
	most   time.Duration // spans are closed, and then read again, for so long in one audit, and one at least; the next one goes on
	small  int64         // a ledger of no more entries is read whole each time
	width  int64         // numbers of a span; what is stored was made with the same
}

// The auditor's defaults.
const (
	smallLedger  = 1_000_000
	spanWidth    = 100_000
	auditGrace   = time.Minute
	auditMost    = 8 * time.Second
	paymentsTurn = 10_000 // payments that an audit holds against the ledger again at least
)

func newAuditor(db *pgxpool.Pool, reread time.Duration) *auditor {
	return &auditor{db: db, reread: reread, grace: auditGrace, most: auditMost, small: smallLedger, width: spanWidth}
}

// ledgerChanged is the kind of a closed span that is not what it was.
const ledgerChanged = "ledger-changed"

// audit returns what breaks the rules. full reads everything now, whatever is closed; so does the audit of a ledger of which less than half is, as the first is.
func (a *auditor) audit(ctx context.Context, full bool) (found []facts.Breach, err error) {
	var last int64
	if err = a.db.QueryRow(ctx, lastEntrySQL).Scan(&last); err != nil {
		return nil, fmt.Errorf("read how many entries there are: %w", err)
	}
	if last <= a.small {
		return facts.Audit(ctx, a.db, rules)
	}
	if err := a.settle(ctx, last); err != nil {
		return nil, err
	}
	if err := a.closeAll(ctx); err != nil {
		return nil, err
	}
	if found, err = a.readAgain(ctx); err != nil {
		return nil, err
	}
	if err := a.closeAll(ctx); err != nil { // the sums are made anew where something has changed
		return nil, err
	}
	var after int64
	if err := a.db.QueryRow(ctx, summedUpToSQL).Scan(&after); err != nil {
		return nil, fmt.Errorf("read how many spans are closed: %w", err)
	}
	steps := []func(context.Context) ([]facts.Breach, error){a.news, func(ctx context.Context) ([]facts.Breach, error) { return a.walkPayments(ctx, last) }, a.accounts}
	if open := last - after*a.width; full || open > a.small && open > last/2 {
		steps = []func(context.Context) ([]facts.Breach, error){a.all}
	}
	for _, step := range steps {
		some, err := step(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return distinct(found), nil
}

// accounts holds all accounts to what their names and first entries say of them.
func (a *auditor) accounts(ctx context.Context) ([]facts.Breach, error) {
	return facts.Audit(ctx, a.db, []facts.Rule{accountsRule})
}

// all holds everything to the rules.
func (a *auditor) all(ctx context.Context) ([]facts.Breach, error) {
	found, err := facts.Audit(ctx, a.db, rules)
	if err == nil && len(found) == 0 {
		_, err = a.db.Exec(ctx, clearedSQL)
	}
	return found, err
}

const (
	lastEntrySQL = `SELECT last_value FROM entries_n_seq`

	// settleSQL moves the horizon: numbers that were given when it was stored are settled when all transactions of that time have ended. That $1 was read
	// before this statement began matters: whoever has a number of no more has one of the transactions of its snapshot, or none yet, for less than the
	// grace. A horizon of another server's transactions, in a copy, is stored anew.
	settleSQL = `INSERT INTO audit_horizon AS h (n, xid, at) VALUES ($1, pg_snapshot_xmax(pg_current_snapshot()), now())
ON CONFLICT (one) DO UPDATE SET settled = CASE WHEN h.xid <= pg_snapshot_xmin(pg_current_snapshot()) THEN h.n ELSE h.settled END,
    n = excluded.n, xid = excluded.xid, at = excluded.at
WHERE h.at <= now() - $2::interval AND h.xid <= pg_snapshot_xmin(pg_current_snapshot()) OR h.xid > pg_snapshot_xmax(pg_current_snapshot())`

	lockHorizonSQL = `SELECT settled, closed, summed FROM audit_horizon FOR UPDATE`

	// digestSpanSQL is how many entries a span has, and the XOR of their hashes.
	digestSpanSQL = `SELECT count(*), coalesce(bit_xor(substr(sha256(convert_to(concat_ws('|', n, account_id, transfer_id, kind, amount, counterparty, order_id), 'UTF8')), 1, 8)::bigint), 0)
FROM entries WHERE n > $1 AND n <= $2`

	addSpanSQL = `INSERT INTO audit_spans (span, entries, digest, seen) VALUES ($1, $2, $3, $3)`

	sumAccountsSQL = `INSERT INTO audit_accounts AS s (account_id, amount)
SELECT account_id, sum(amount)::bigint FROM entries WHERE n > $1 AND n <= $2 GROUP BY account_id
ON CONFLICT (account_id) DO UPDATE SET amount = s.amount + excluded.amount`

	sumTransfersSQL = `INSERT INTO audit_transfers AS s (transfer_id, amount)
SELECT transfer_id, sum(amount)::bigint FROM entries WHERE n > $1 AND n <= $2 GROUP BY transfer_id HAVING sum(amount) <> 0
ON CONFLICT (transfer_id) DO UPDATE SET amount = s.amount + excluded.amount`

	dropWholeSQL = `DELETE FROM audit_transfers WHERE amount = 0`

	suspectSQL = `UPDATE audit_spans SET suspect = $2 WHERE span = $1 AND suspect <> $2`
	clearedSQL = `UPDATE audit_spans SET suspect = false WHERE suspect`

	closedSQL = `UPDATE audit_horizon SET closed = closed + 1`
	summedSQL = `UPDATE audit_horizon SET summed = summed + 1`
)

// settle moves the horizon, below which no entry comes any more.
func (a *auditor) settle(ctx context.Context, last int64) error {
	if _, err := a.db.Exec(ctx, settleSQL, last, a.grace); err != nil {
		return fmt.Errorf("store the audit's horizon: %w", err)
	}
	return nil
}

// closeAll closes the spans that are settled.
func (a *auditor) closeAll(ctx context.Context) error {
	for began := time.Now(); ; {
		if more, err := a.close(ctx); err != nil || !more || time.Since(began) > a.most {
			return err
		}
	}
}

// rules holds what is in a closed span to the rules. One that has just been closed, or in which something breaks them, is read each time until nothing does.
func (a *auditor) rules(ctx context.Context, span int64) ([]facts.Breach, error) {
	found, err := a.rangeOf(ctx, span*a.width, (span+1)*a.width)
	if err != nil {
		return nil, err
	}
	if _, err := a.db.Exec(ctx, suspectSQL, span, len(found) > 0); err != nil {
		return nil, fmt.Errorf("store whether a span of entries breaks a rule: %w", err)
	}
	return found, nil
}

// close sums up the next span that is closed, or closes the next one that is settled. more is false where there is none.
func (a *auditor) close(ctx context.Context) (more bool, err error) {
	err = pg.InTx(ctx, a.db, func(tx pgx.Tx) error {
		var settled, closed, summed int64
		if err := tx.QueryRow(ctx, lockHorizonSQL).Scan(&settled, &closed, &summed); err != nil {
			return err
		}
		var b pgx.Batch
		switch {
		case summed < closed:
			from, to := summed*a.width, (summed+1)*a.width
			b.Queue(sumAccountsSQL, from, to)
			b.Queue(sumTransfersSQL, from, to)
			b.Queue(dropWholeSQL)
			b.Queue(summedSQL)
		case (closed+1)*a.width <= settled:
			n, digest, err := a.digest(ctx, tx, closed)
			if err != nil {
				return err
			}
			b.Queue(addSpanSQL, closed, n, digest)
			b.Queue(closedSQL)
		default:
			return nil
		}
		more = true
		return pg.Defer(ctx, tx, &b)
	})
	if err != nil {
		return false, fmt.Errorf("close a span of entries: %w", err)
	}
	return more, nil
}

func (a *auditor) digest(ctx context.Context, tx pgx.Tx, span int64) (entries, digest int64, err error) {
	err = tx.QueryRow(ctx, digestSpanSQL, span*a.width, (span+1)*a.width).Scan(&entries, &digest)
	return entries, digest, err
}

const (
	// dueSpansSQL selects those that something is or may be wrong with, and as many others as the time since the last look is of a turn, one at least.
	dueSpansSQL = `SELECT span FROM audit_spans ORDER BY changed_at IS NULL AND NOT suspect, read_at, span LIMIT (SELECT count(*) FILTER (WHERE changed_at IS NOT NULL OR suspect) +
    greatest(1, ceil(count(*) * extract(epoch FROM now() - max(read_at)) / extract(epoch FROM $1::interval)))::bigint FROM audit_spans)`

	lockSpanSQL = `SELECT entries, digest, seen, coalesce(changed_at <= now() - $2::interval, false) FROM audit_spans WHERE span = $1 FOR UPDATE`

	sameSpanSQL = `UPDATE audit_spans SET read_at = now() WHERE span = $1`

	// changedSpanSQL tells a change for as long as a turn takes.
	changedSpanSQL = `UPDATE audit_spans SET seen = $2, read_at = now(), changed_at = CASE WHEN digest <> $2 THEN coalesce(changed_at, now()) END WHERE span = $1`

	acceptSpanSQL = `UPDATE audit_spans SET digest = seen, entries = $2, read_at = now(), changed_at = NULL WHERE span = $1`

	dropAccountsSQL = `DELETE FROM audit_accounts`
	dropHalvesSQL   = `DELETE FROM audit_transfers`
	sumAnewSQL      = `UPDATE audit_horizon SET summed = 0`
)

// readAgain reads the closed spans whose turn it is, holds them to what they were, and what they are to the rules. The sums are made anew when one has changed.
func (a *auditor) readAgain(ctx context.Context) (found []facts.Breach, err error) {
	rows, _ := a.db.Query(ctx, dueSpansSQL, a.reread) // the error surfaces in the collector
	due, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("look for spans of entries whose turn it is: %w", err)
	}
	began := time.Now()
	for i, span := range due {
		if i > 0 && time.Since(began) > a.most {
			break
		}
		changed, err := a.readSpan(ctx, span)
		if err != nil {
			return nil, fmt.Errorf("read the entries from %d on again: %w", span*a.width+1, err)
		}
		some, err := a.rules(ctx, span)
		if err != nil {
			return nil, err
		}
		found = append(found, append(changed, some...)...)
	}
	return found, nil
}

func (a *auditor) readSpan(ctx context.Context, span int64) (found []facts.Breach, err error) {
	err = pg.InTx(ctx, a.db, func(tx pgx.Tx) error {
		var settled, closed, summed, entries, digest, seen int64
		var old bool
		if err := tx.QueryRow(ctx, lockHorizonSQL).Scan(&settled, &closed, &summed); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, lockSpanSQL, span, a.reread).Scan(&entries, &digest, &seen, &old); err != nil {
			return err
		}
		n, is, err := a.digest(ctx, tx, span)
		if err != nil {
			return err
		}
		var b pgx.Batch
		switch {
		case is != seen:
			b.Queue(changedSpanSQL, span, is)
			b.Queue(dropAccountsSQL)
			b.Queue(dropHalvesSQL)
			b.Queue(sumAnewSQL)
		case is != digest && old:
			b.Queue(acceptSpanSQL, span, n)
			digest = is
		default:
			b.Queue(sameSpanSQL, span)
		}
		if is != digest {
			found = []facts.Breach{{
				Kind: ledgerChanged, Subject: fmt.Sprintf("entries %d to %d", span*a.width+1, (span+1)*a.width),
				Detail: fmt.Sprintf("there are %d, and they are not the %d that there were when they were audited: somebody has changed, added or deleted some since", n, entries),
			}}
		}
		return pg.Defer(ctx, tx, &b)
	})
	return found, err
}
